#!/usr/bin/env python3
"""The demo: a shop in Postgres that has sold for a while, and the replicator carrying all of it on.

    source Postgres (database shop) ──▶ replicator ──▶ ClickHouse (database shop)
                                              ├──────▶ Postgres (database copy)
                                              └──────▶ folder (gzipped NDJSON)

What is there is copied while the shop goes on selling; in the middle of the load a table gets a column; at the end every
copy is compared with the source, row by row.

`make demo` runs it. DEMO_SECONDS ends the load after that time (otherwise Ctrl-C does), DEMO_RATE is orders a second,
DEMO_KEEP=1 keeps the folder. CLICKHOUSE_URL uses that ClickHouse; otherwise one that answers on 127.0.0.1:8123,
otherwise the current engine, embedded, behind ClickHouse's HTTP interface.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from archive_state import ArchiveState
from demo_compare import report, rows_of_archive, state_of
from demo_shop import COMPARED, HISTORY, LOAD, NEW_COLUMN, NEW_LOAD, SCHEMA, TABLES

HERE = Path(__file__).resolve().parent
PG_BIN = Path(os.environ["PG15_BIN"])
RUN_AS = os.environ.get("DEV_RUN_AS", "")
RATE = int(os.environ.get("DEMO_RATE", "300"))
# When the column comes, without DEMO_SECONDS.
COLUMN_AFTER_S = 10


class Processes:
    """What was started, to be ended in the opposite order."""

    def __init__(self):
        self.running = []

    def start(self, name, command, log, as_server_user=False, **options):
        # A new session keeps the terminal's Ctrl-C for this script; the parent's end still ends the child.
        launch = ["setpriv", "--pdeathsig", "TERM"]
        if as_server_user and RUN_AS:
            launch += ["--reuid", RUN_AS, "--regid", RUN_AS, "--init-groups"]
        process = subprocess.Popen(
            [*launch, *map(str, command)], start_new_session=True, stderr=log, **options
        )
        self.running.append((name, process))
        return process

    def stop(self, name, how=signal.SIGTERM, timeout=40):
        for entry in [entry for entry in self.running if entry[0] == name]:
            self.running.remove(entry)
            process = entry[1]
            if process.poll() is None:
                process.send_signal(how)
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()
        return None

    def stop_all(self):
        for name, _ in reversed(list(self.running)):
            self.stop(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ready, process=None, seconds=60, what_failed="start"):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"demo: {what} did not {what_failed}; see the logs in the demo's folder")


def http(url, body=None, timeout=10):
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=timeout) as answer:
        return answer.read().decode()


def answers(url):
    try:
        http(url, timeout=2)
        return True
    except (OSError, urllib.error.URLError):
        return False


class Demo:
    def __init__(self, replicator):
        self.replicator = Path(replicator).resolve()
        self.folder = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
        self.folder.chmod(0o755)
        self.processes = Processes()
        self.pg_port, self.http_port = free_port(), free_port()
        self.clickhouse_url, self.database = None, "shop"
        self.has_column = False

    def log(self, name):
        return open(self.folder / f"{name}.log", "ab")

    # -- servers

    def start_postgres(self):
        data = self.folder / "postgres"
        data.mkdir(mode=0o700)
        command = [PG_BIN / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
        if RUN_AS:
            shutil.chown(data, RUN_AS, RUN_AS)
            command = ["setpriv", "--reuid", RUN_AS, "--regid", RUN_AS, "--init-groups", *command]
        subprocess.run(
            list(map(str, command)), check=True, stdout=subprocess.DEVNULL, cwd="/", stderr=self.log("initdb")
        )
        server = [PG_BIN / "postgres", "-D", data, "-p", self.pg_port, "-c", "wal_level=logical"]
        server += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
        log = self.log("postgres")
        process = self.processes.start("postgres", server, log, as_server_user=True, stdout=log, cwd="/")
        wait_for("Postgres", lambda: self.psql("postgres", "SELECT 1", check=False) == "1", process)
        self.psql("postgres", "CREATE DATABASE shop")
        self.psql("postgres", "CREATE DATABASE copy")
        self.psql("shop", SCHEMA)
        self.psql("shop", HISTORY)

    def start_clickhouse(self):
        given = os.environ.get("CLICKHOUSE_URL")
        if given:
            self.clickhouse_url, kind = given.rstrip("/"), "the server of CLICKHOUSE_URL"
        elif answers("http://127.0.0.1:8123/ping"):
            self.clickhouse_url, kind = "http://127.0.0.1:8123", "the server on port 8123"
        else:
            port = free_port()
            self.clickhouse_url, kind = f"http://127.0.0.1:{port}", "the embedded engine"
            front = [sys.executable, HERE / "clickhouse_http.py", "--port", port]
            front += ["--path", self.folder / "clickhouse"]
            log = self.log("clickhouse")
            process = self.processes.start("clickhouse", front, log, stdout=log)
            wait_for("ClickHouse", lambda: answers(self.clickhouse_url + "/ping"), process)
        if not kind.startswith("the embedded"):
            # Somebody else's server: a database of our own, dropped at the end.
            self.database = f"replicator_demo_{os.getpid()}"
        version = self.clickhouse("SELECT version()")
        print(f"ClickHouse {version}: {kind}, {self.clickhouse_url}")

    def start_replicator(self):
        (self.folder / "lake").mkdir()
        config = self.folder / "replicator.toml"
        config.write_text(f"""\
[source]
url = "postgres://postgres@127.0.0.1:{self.pg_port}/shop?sslmode=disable"
tables = ["public.*"]

# Small pieces, so that such a short copy can be watched; the default is 64 MiB.
[copy]
range_bytes = "1MiB"

[http]
listen = "127.0.0.1:{self.http_port}"

[[sink]]
name = "analytics"
type = "clickhouse"
url = "{self.clickhouse_url}"
database = "{self.database}"
batch = {{ interval_ms = 500 }}

[[sink]]
name = "copy"
type = "postgres"
url = "postgres://postgres@127.0.0.1:{self.pg_port}/copy?sslmode=disable"
batch = {{ interval_ms = 500 }}

[[sink]]
name = "archive"
type = "object_store"
url = "file://{self.folder}/lake"
batch = {{ interval_ms = 2000 }}
""")
        log = self.log("replicator")
        command = [self.replicator, "run", "--config", config]
        process = self.processes.start("replicator", command, log, stdout=log)
        wait_for("the replicator", lambda: "replicator_copy_done_ratio" in self.metrics(), process)

    def start_load(self, name, text, rate):
        script = self.folder / f"{name}.sql"
        script.write_text(text)
        command = [PG_BIN / "pgbench", "-n", "-f", script, "-c", 2, "-R", rate, "-T", 10**7]
        command += ["-h", "127.0.0.1", "-p", self.pg_port, "-U", "postgres", "shop"]
        log = self.log(name)
        self.processes.start(name, command, log, stdout=log)

    # -- questions

    def psql(self, database, sql, check=True):
        command = [PG_BIN / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", self.pg_port]
        command += ["-U", "postgres", "-d", database, "-c", sql]
        quiet = None if check else subprocess.DEVNULL
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=quiet, text=True)
        if check and done.returncode != 0:
            raise SystemExit(f"demo: psql failed on: {sql.strip().splitlines()[0]}")
        return done.stdout.strip()

    def clickhouse(self, sql):
        return http(f"{self.clickhouse_url}/?{urllib.parse.urlencode({'query': sql})}", body=b"").strip()

    def metrics(self):
        values = {}
        try:
            text = http(f"http://127.0.0.1:{self.http_port}/metrics")
        except (OSError, urllib.error.URLError):
            return values
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def log_lines(self, message):
        lines = (self.folder / "replicator.log").read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = (json.loads(line) for line in lines if line.startswith("{"))
        return [line for line in parsed if line.get("msg") == message]

    def counts(self, query):
        return [int(count) for count in query.split("\t" if "\t" in query else "|")]

    def source_counts(self, database):
        return self.counts(self.psql(database, "SELECT " + ", ".join(f"(SELECT count(*) FROM {t})" for t in TABLES)))

    def clickhouse_counts(self):
        of = ", ".join(f"(SELECT count() FROM {self.database}.{t} FINAL)" for t in TABLES)
        return self.counts(self.clickhouse(f"SELECT {of}"))

    def postgres_rows(self, database, table, columns):
        separated = " || E'\\t' || ".join(f"{column}::text" for column in columns)
        return self.psql(database, f"SELECT {separated} FROM {table} ORDER BY id").splitlines()

    def clickhouse_rows(self, table, columns):
        query = f"SELECT {', '.join(columns)} FROM {self.database}.{table} FINAL ORDER BY id FORMAT TSV"
        return self.clickhouse(query + " SETTINGS output_format_decimal_trailing_zeros = 1").splitlines()

    # -- the show

    def show_copy(self, rows):
        """The initial copy, until every table of it is durable in every sink."""
        replicator = dict(self.processes.running)["replicator"]
        print(f"\nThe initial copy: {sum(rows):,} rows were there; the shop goes on selling meanwhile")
        print(f"{'s':>5} {'done':>5} {'rows/s':>8} {'ETA s':>6} {'tables left':>11}  rows read / there before")
        start, before = time.monotonic(), (0.0, 0.0)
        while True:
            metrics, at = self.metrics(), time.monotonic() - start
            read = [int(metrics.get(f'replicator_copy_rows_total{{table="public.{table}"}}', 0)) for table in TABLES]
            rate = (sum(read) - before[1]) / max(at - before[0], 0.001)
            before = (at, sum(read))
            left = int(metrics.get("replicator_copy_tables_left", len(TABLES)))
            tables = "  ".join(f"{t} {r:,}/{n:,}" for t, r, n in zip(TABLES, read, rows, strict=True))
            done, eta = metrics.get("replicator_copy_done_ratio", 0), metrics.get("replicator_copy_eta_seconds", 0)
            print(f"{at:5.1f} {done:5.0%} {rate:8.0f} {eta:6.1f} {left:11}  {tables}", flush=True)
            if left == 0:
                break
            if replicator.poll() is not None or at > 300:
                raise SystemExit("demo: the copy did not come to its end; DEMO_KEEP=1 keeps the logs")
            time.sleep(0.5)
        wait_for("the copy", lambda: self.log_lines("copy over"), replicator, what_failed="come to its end")
        over = self.log_lines("copy over")[0]
        print(f"copied {int(over['rows']):,} rows in {over['seconds']} s, {int(over['rows_per_second']):,} rows/s")

    def add_column(self, elapsed):
        """In the middle of the load; then a second program comes that knows the column."""
        print(f"{elapsed:4.0f} {NEW_COLUMN}")
        begun = time.monotonic()
        self.psql("shop", NEW_COLUMN)
        self.has_column = True
        self.start_load("new-load", NEW_LOAD, max(1, RATE // 5))
        which = "FROM information_schema.columns WHERE table_name = 'purchases' AND column_name = 'channel'"
        clickhouse = f"SELECT count() {which} AND table_schema = '{self.database}'"
        copy = f"SELECT count(*) {which}"
        replicator = dict(self.processes.running)["replicator"]
        questions = {"ClickHouse": lambda: self.clickhouse(clickhouse), "the copy": lambda: self.psql("copy", copy)}
        for place, ask in questions.items():
            wait_for(f"the column in {place}", lambda ask=ask: ask() == "1", replicator, what_failed="arrive")
        print(f"     the column is in ClickHouse and in the copy, {time.monotonic() - begun:.1f} s later", flush=True)

    def show(self, seconds):
        print(f"""
Where to look
  metrics     http://127.0.0.1:{self.http_port}/metrics     readiness  http://127.0.0.1:{self.http_port}/readyz
  source      psql -h 127.0.0.1 -p {self.pg_port} -U postgres shop
  copy        psql -h 127.0.0.1 -p {self.pg_port} -U postgres copy
  ClickHouse  curl '{self.clickhouse_url}/' --data-binary 'SELECT * FROM {self.database}.purchases FINAL LIMIT 5'
  archive     {self.folder}/lake/wal/events
  settings    {self.folder}/replicator.toml      log  {self.folder}/replicator.log
""")
        column_at = COLUMN_AFTER_S if seconds is None else seconds / 2
        header = f"{'s':>4} {'lag':>9} {'lag s':>6} {'changes/s':>9}  rows of " + " ".join(
            f"{table:>24}" for table in TABLES
        )
        start, before, ticks = time.monotonic(), None, 0
        while seconds is None or time.monotonic() - start < seconds:
            if ticks % 20 == 0:
                print(header)
                print(" " * 39 + " ".join(f"{'source/ClickHouse/copy':>24}" for _ in TABLES))
            metrics = self.metrics()
            events = sum(v for k, v in metrics.items() if k.startswith("replicator_events_processed_total"))
            rate = 0 if before is None else events - before[0]
            elapsed = 1 if before is None else time.monotonic() - before[1]
            before = (events, time.monotonic())
            rows = zip(self.source_counts("shop"), self.clickhouse_counts(), self.source_counts("copy"), strict=True)
            cells = " ".join(f"{'/'.join(map(str, row)):>24}" for row in rows)
            lag = metrics.get("replicator_lag_bytes", 0)
            lag_s = metrics.get("replicator_lag_seconds", 0)
            speed = f"{lag / 1024:6.0f} kB {lag_s:6.2f} {rate / elapsed:9.0f}"
            print(f"{before[1] - start:4.0f} {speed}  {'':7} {cells}", flush=True)
            ticks += 1
            if column_at is not None and time.monotonic() - start >= column_at:
                self.add_column(time.monotonic() - start)
                column_at = None
            time.sleep(max(0.0, ticks - (time.monotonic() - start)))

    def finish(self):
        """Ends the load, lets the replicator drain, and compares."""
        self.processes.stop("load", signal.SIGINT)
        self.processes.stop("new-load", signal.SIGINT)
        end = self.psql("shop", "SELECT pg_current_wal_insert_lsn()")
        behind = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 'replicator'"
        replicator = dict(self.processes.running)["replicator"]
        wait_for("the end of the load", lambda: self.psql("shop", behind) == "t", replicator, what_failed="arrive")
        code = self.processes.stop("replicator")
        print(f"\nreplicator ended with exit code {code}")
        archive = ArchiveState(self.folder / "lake")
        print(f"archive: {archive.events:,} events in {archive.files} files, {archive.bytes / 1024:,.0f} kB")
        compared = {
            table: [column for column in columns if column != "channel" or self.has_column]
            for table, columns in COMPARED.items()
        }
        states = {
            "source": state_of(compared, lambda *of: self.postgres_rows("shop", *of)),
            "ClickHouse": state_of(compared, self.clickhouse_rows),
            "copy": state_of(compared, lambda *of: self.postgres_rows("copy", *of)),
            "archive": state_of(compared, rows_of_archive(archive)),
        }
        return report(compared, states) and code == 0

    def close(self):
        if self.clickhouse_url and self.database != "shop":
            self.clickhouse(f"DROP DATABASE IF EXISTS {self.database}")
        self.processes.stop_all()
        if os.environ.get("DEMO_KEEP"):
            print(f"kept {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--replicator", required=True, help="the built command")
    replicator = arguments.parse_args().replicator
    seconds = os.environ.get("DEMO_SECONDS")
    # A supervisor's SIGTERM ends the demo as Ctrl-C does, also where a shell has it ignore SIGINT.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo = Demo(replicator)
    try:
        demo.start_postgres()
        demo.start_clickhouse()
        rows = demo.source_counts("shop")
        demo.start_replicator()
        demo.start_load("load", LOAD, RATE)
        demo.show_copy(rows)
        try:
            demo.show(float(seconds) if seconds else None)
        except KeyboardInterrupt:
            print("\nstopping; what is in flight is carried to its end")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not demo.finish():
            raise SystemExit("demo: the copies differ from the source; DEMO_KEEP=1 keeps the logs")
        print("the copies are equal to the source")
    except KeyboardInterrupt:
        print("\nstopped")
    finally:
        demo.close()


if __name__ == "__main__":
    main()
