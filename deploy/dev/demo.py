#!/usr/bin/env python3
"""The demo: a shop in Postgres, a load, and the replicator carrying every change on.

    source Postgres (database shop) ──▶ replicator ──▶ ClickHouse (database shop)
                                              ├──────▶ Postgres (database copy)
                                              └──────▶ folder (gzipped NDJSON)

`make demo` runs it. DEMO_SECONDS ends it after that time (otherwise Ctrl-C does), DEMO_RATE is purchases a
second, DEMO_KEEP=1 keeps the folder. CLICKHOUSE_URL uses that ClickHouse; otherwise one that answers on
127.0.0.1:8123, otherwise the current engine, embedded, behind ClickHouse's HTTP interface.
"""

import argparse
import gzip
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

HERE = Path(__file__).resolve().parent
PG_BIN = Path(os.environ["PG15_BIN"])
RUN_AS = os.environ.get("DEV_RUN_AS", "")
RATE = int(os.environ.get("DEMO_RATE", "300"))
TABLES = ["customers", "products", "orders", "purchases"]

SCHEMA = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, country char(2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE products (
    id bigint PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL, stock integer NOT NULL,
    tags text[] NOT NULL DEFAULT '{}');
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL DEFAULT 'open', note text, ordered_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE purchases (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
    product_id bigint NOT NULL REFERENCES products, quantity integer NOT NULL, amount numeric(12,2) NOT NULL,
    details jsonb, purchased_at timestamptz NOT NULL DEFAULT now());
"""

CATALOG = """
INSERT INTO customers (id, name, email, country)
SELECT n, 'Customer ' || n, 'c' || n || '@example.com', (ARRAY['DE','FR','US','JP','BR'])[1 + n % 5]
FROM generate_series(1, 1000) n;
INSERT INTO products (id, name, price, stock, tags)
SELECT n, 'Product ' || n, round((5 + random() * 95)::numeric, 2), 100000, ARRAY['tag' || n % 7, 'new']
FROM generate_series(1, 200) n;
"""

# One transaction of the load: an order with one purchase, the stock; now and then a cancelled order.
LOAD = r"""
\set customer random(1, 1000)
\set product random(1, 200)
\set quantity random(1, 5)
\set cancel random(1, 20)
BEGIN;
WITH o AS (INSERT INTO orders (customer_id) VALUES (:customer) RETURNING id)
INSERT INTO purchases (order_id, product_id, quantity, amount, details)
SELECT o.id, p.id, :quantity, p.price * :quantity, jsonb_build_object('channel', 'web', 'price', p.price)
FROM o, products p WHERE p.id = :product;
UPDATE products SET stock = stock - :quantity WHERE id = :product;
UPDATE orders SET status = 'paid' WHERE id = (SELECT max(id) FROM orders WHERE status = 'open');
\if :cancel = 1
DELETE FROM purchases WHERE id = (SELECT max(id) - 500 FROM purchases);
\endif
COMMIT;
"""


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
        ready = f"http://127.0.0.1:{self.http_port}/readyz"
        wait_for("the replicator", lambda: answers(ready), process)

    def start_load(self):
        # There is no initial copy yet, so the catalogue is filled in while the replicator listens.
        self.psql("shop", CATALOG)
        script = self.folder / "load.sql"
        script.write_text(LOAD)
        command = [PG_BIN / "pgbench", "-n", "-f", script, "-c", 2, "-R", RATE, "-T", 10**7]
        command += ["-h", "127.0.0.1", "-p", self.pg_port, "-U", "postgres", "shop"]
        log = self.log("load")
        self.processes.start("load", command, log, stdout=log)

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
        for line in http(f"http://127.0.0.1:{self.http_port}/metrics").splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def counts(self, query):
        return [int(count) for count in query.split("\t" if "\t" in query else "|")]

    def source_counts(self, database):
        return self.counts(self.psql(database, "SELECT " + ", ".join(f"(SELECT count(*) FROM {t})" for t in TABLES)))

    def clickhouse_counts(self):
        of = ", ".join(f"(SELECT count() FROM {self.database}.{t} FINAL)" for t in TABLES)
        return self.counts(self.clickhouse(f"SELECT {of}"))

    def archive(self):
        files = list((self.folder / "lake").rglob("*.ndjson.gz"))
        return len(files), sum(file.stat().st_size for file in files)

    # -- the show

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
            print(f"{before[1] - start:4.0f} {lag / 1024:6.0f} kB {lag_s:6.2f} {rate / elapsed:9.0f}  {'':7} {cells}", flush=True)
            ticks += 1
            time.sleep(max(0.0, ticks - (time.monotonic() - start)))

    def finish(self):
        """Ends the load, lets the replicator drain, and compares."""
        self.processes.stop("load", signal.SIGINT)
        end = self.psql("shop", "SELECT pg_current_wal_insert_lsn()")
        behind = f"SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 'replicator'"
        replicator = dict(self.processes.running)["replicator"]
        wait_for("the end of the load", lambda: self.psql("shop", behind) == "t", replicator, what_failed="arrive")
        code = self.processes.stop("replicator")
        sums = "SELECT " + ", ".join(
            [f"(SELECT count(*) FROM {t})" for t in TABLES]
            + ["(SELECT sum(amount) FROM purchases)", "(SELECT sum(stock) FROM products)"]
        )
        source, copy = self.psql("shop", sums), self.psql("copy", sums)
        answer = self.clickhouse(
            "SELECT "
            + ", ".join(f"(SELECT count() FROM {self.database}.{t} FINAL)" for t in TABLES)
            + f", (SELECT sum(amount) FROM {self.database}.purchases FINAL)"
            + f", (SELECT sum(stock) FROM {self.database}.products FINAL)"
        )
        clickhouse = answer.replace("\t", "|")
        files, size = self.archive()
        events = 0
        for file in (self.folder / "lake").rglob("*.ndjson.gz"):
            with gzip.open(file, "rb") as lines:
                events += sum(1 for _ in lines)
        print(f"\nreplicator ended with exit code {code}")
        print(f"counts of {', '.join(TABLES)}; sum of amounts; stock")
        print(f"  source      {source}\n  copy        {copy}\n  ClickHouse  {clickhouse}")
        print(f"  archive     {events} events in {files} files, {size / 1024:.0f} kB")
        same = [float(a) for a in source.split("|")] == [float(a) for a in clickhouse.split("|")]
        return code == 0 and source == copy and same

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
    # A supervisor's SIGTERM ends the demo as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    demo = Demo(replicator)
    try:
        demo.start_postgres()
        demo.start_clickhouse()
        demo.start_replicator()
        demo.start_load()
        try:
            demo.show(float(seconds) if seconds else None)
        except KeyboardInterrupt:
            print("\nstopping; what is in flight is carried to its end")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not demo.finish():
            raise SystemExit("demo: the copies differ from the source; DEMO_KEEP=1 keeps the logs")
        print("the copies are equal to the source")
    except KeyboardInterrupt:
        print("\nstopped")
    finally:
        demo.close()


if __name__ == "__main__":
    main()
