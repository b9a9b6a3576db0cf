"""python -m unittest: what the demo makes of an archive's events."""

import gzip
import json
import tempfile
import unittest
from pathlib import Path

from archive_state import ArchiveState
from demo_compare import report, rows_of_archive, state_of


def event(op, lsn, ordinal, key, after, **more):
    values = {"op": op, "table": "t", "lsn": lsn, "ordinal": ordinal, "key": key, "before": None, "after": after}
    return {**values, **more}


class ArchiveStateTest(unittest.TestCase):
    def rows(self, *files):
        with tempfile.TemporaryDirectory() as folder:
            for number, events in enumerate(files):
                with gzip.open(Path(folder) / f"{number}.ndjson.gz", "wt", encoding="utf-8") as lines:
                    lines.writelines(json.dumps(event) + "\n" for event in events)
            return sorted(ArchiveState(Path(folder)).rows("t"), key=lambda row: row["id"])

    def test_the_newest_event_of_each_key_is_the_row_in_whatever_order_files_are_read(self):
        old = [event("read", "0/FF", 7, {"id": 1}, {"id": 1, "v": "read"}), event("read", "0/FF", 8, {"id": 2}, {"id": 2})]
        new = [event("update", "1/2", 0, {"id": 1}, {"id": 1, "v": "new"}), event("delete", "0/100", 0, {"id": 2}, None)]
        wanted = [{"id": 1, "v": "new"}]
        self.assertEqual(self.rows(old, new), wanted)
        self.assertEqual(self.rows(new, old), wanted)

    def test_a_truncate_takes_what_is_older_and_leaves_what_is_newer(self):
        emptied = event("truncate", "0/20", 3, None, None)
        rows = [event("insert", "0/20", 2, {"id": 1}, {"id": 1}), event("insert", "0/20", 4, {"id": 2}, {"id": 2})]
        self.assertEqual(self.rows([emptied, *rows]), [{"id": 2}])

    def test_an_update_of_the_key_leaves_nothing_under_the_old_one(self):
        update = event("update", "0/30", 0, {"id": 5}, {"id": 5}, before={"id": 1})
        self.assertEqual(self.rows([event("insert", "0/20", 0, {"id": 1}, {"id": 1}), update]), [{"id": 5}])

    def test_rows_from_before_a_column_have_what_its_table_says_they_have(self):
        described = {"columns": [{"name": "id"}, {"name": "channel", "missing": "web"}]}
        old = event("insert", "0/20", 0, {"id": 1}, {"id": 1})
        new = event("insert", "0/30", 0, {"id": 2}, {"id": 2, "channel": "app"}, relation=described)
        self.assertEqual(self.rows([old], [new]), [{"id": 1, "channel": "web"}, {"id": 2, "channel": "app"}])


class ReportTest(unittest.TestCase):
    def test_one_value_that_differs_is_seen(self):
        compared = {"purchases": ["id", "channel"]}

        class Archive:
            def __init__(self, channel):
                self.channel = channel

            def rows(self, _):
                yield {"id": 1, "channel": self.channel}

        states = [state_of(compared, rows_of_archive(Archive(channel))) for channel in ("web", "web", "app")]
        self.assertTrue(report(compared, {"source": states[0], "copy": states[1]}))
        self.assertFalse(report(compared, {"source": states[0], "copy": states[2]}))


if __name__ == "__main__":
    unittest.main()
