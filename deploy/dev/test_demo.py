"""The demo itself, as `make demo` runs it: short, and with the command that was built for the tests."""

import os
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).parent
REPLICATOR = HERE.parent.parent / "target" / "debug" / "replicator"


class Demo(unittest.TestCase):
    def test_the_copies_are_shown_get_the_new_column_and_end_equal(self):
        environment = {**os.environ, "DEMO_SECONDS": "12"}
        command = [sys.executable, str(HERE / "demo.py"), "--replicator", str(REPLICATOR)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        said = ran.stdout + ran.stderr
        self.assertEqual(ran.returncode, 0, said)
        for part in [
            "The initial copy: ",
            "the column is in ClickHouse and in the copy",
            "the copies are equal to the source",
        ]:
            self.assertIn(part, said)


if __name__ == "__main__":
    unittest.main()
