"""What each place holds at the end of the demo, and whether it is the same everywhere."""

import hashlib
from typing import NamedTuple


class Table(NamedTuple):
    rows: int
    # MD5 over the rows in the order of id, values as text, between tabs.
    digest: str
    # How many rows there are of each value of the new column.
    channels: dict


def state_of(compared, rows_of):
    """`rows_of` gives a table's rows, in the order of id, as values between tabs; the result is by table."""
    state = {}
    for table, columns in compared.items():
        lines = rows_of(table, columns)
        channels = {}
        if "channel" in columns:
            for line in lines:
                channel = line.split("\t")[columns.index("channel")]
                channels[channel] = channels.get(channel, 0) + 1
        digest = hashlib.md5("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
        state[table] = Table(len(lines), digest, channels)
    return state


def rows_of_archive(archive):
    def rows_of(table, columns):
        rows = sorted(archive.rows(table), key=lambda row: row["id"])
        return ["\t".join(str(row[column]) for column in columns) for row in rows]

    return rows_of


def report(compared, states):
    """Prints the states, by place; whether all are as the first."""
    print("\nrows, and MD5 over all of them, of")
    for table, columns in compared.items():
        print(f"  {table} ({', '.join(columns)})")
        for place, state in states.items():
            print(f"    {place:<11} {state[table].rows:>9,}  {state[table].digest}")
    if any(table.channels for state in states.values() for table in state.values()):
        print("purchases by channel, the new column")
        for place, state in states.items():
            cells = (f"{channel} {rows:,}" for channel, rows in sorted(state["purchases"].channels.items()))
            print(f"    {place:<11} " + "   ".join(cells))
    first, *others = states.values()
    return all(other == first for other in others)
