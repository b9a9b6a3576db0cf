"""The rows that the archive's events come to: of each key the newest event, by (lsn, ordinal), is the row.

Good for tables with a key whose values are all small: of a large value that an update left alone the archive says only
that it is `unchanged`.
"""

import gzip
import json


def _position(event):
    high, low = event["lsn"].split("/")
    return (int(high, 16) << 32) + int(low, 16), event["ordinal"]


def _key(values):
    return json.dumps(values, sort_keys=True)


class ArchiveState:
    """Reads every file below `folder`."""

    def __init__(self, folder):
        self.files, self.bytes, self.events = 0, 0, 0
        # By table: the newest event of each key; the last truncate; what rows have that are older than a column.
        self._newest, self._emptied, self._missing = {}, {}, {}
        for path in folder.rglob("*.ndjson.gz"):
            self.files += 1
            self.bytes += path.stat().st_size
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))

    def _take(self, event):
        self.events += 1
        if event["op"] == "message":
            return
        table, at = event["table"], _position(event)
        if "relation" in event:
            missing = self._missing.setdefault(table, {})
            missing.update((c["name"], c["missing"]) for c in event["relation"]["columns"] if "missing" in c)
        if event["op"] == "truncate":
            self._emptied[table] = max(at, self._emptied.get(table, at))
            return
        self._put(table, event["key"], at, event["after"])
        if event["op"] == "update" and event["before"] is not None:
            # The update changed the key, or the source sends whole rows: under another key nothing is left.
            before = {name: event["before"][name] for name in event["key"]}
            if before != event["key"]:
                self._put(table, before, at, None)

    def _put(self, table, key, at, row):
        rows = self._newest.setdefault(table, {})
        key = _key(key)
        if key not in rows or rows[key][0] <= at:
            rows[key] = (at, row)

    def rows(self, table):
        """The table's rows, as dictionaries."""
        emptied = self._emptied.get(table, (0, 0))
        missing = self._missing.get(table, {})
        for at, row in self._newest.get(table, {}).values():
            if row is not None and at > emptied:
                yield {**missing, **row}
