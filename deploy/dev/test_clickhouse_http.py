"""Tests of clickhouse_http.py against real processes of it.

    . deploy/dev/env.sh && "$DEV_PYTHON" -m unittest deploy/dev/test_clickhouse_http.py
"""

import base64
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import clickhouse_http as front  # noqa: E402
import lz4.frame  # noqa: E402
import zstandard  # noqa: E402


class Front:
    """A running front; its data lives in `path`."""

    def __init__(self, path, *args, **env):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "clickhouse_http.py"), "--port", "0", "--path", path, *args],
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            text=True,
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on 127.0.0.1:"):
            raise RuntimeError(f"the front did not start: {line!r}")
        self.port = int(line.rsplit(":", 1)[1])

    def end(self, with_signal=signal.SIGTERM):
        self.process.send_signal(with_signal)
        code = self.process.wait(20)
        self.process.stdout.close()
        return code

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.text = self.body.decode("utf-8", "replace")
        self.code = int(response.headers.get("X-ClickHouse-Exception-Code", 0))
        self.summary = json.loads(response.headers.get("X-ClickHouse-Summary", "{}"))


def ask(connection, body=b"", headers=None, method="POST", **params):
    connection.request(method, "/?" + urlencode(params), body, headers or {})
    return Answer(connection.getresponse())


class FrontTest(unittest.TestCase):
    """All tests of the class share one front; each has a database of its own."""

    @classmethod
    def setUpClass(cls):
        cls.path = tempfile.mkdtemp(prefix="clickhouse_http.")
        cls.front = Front(cls.path)

    @classmethod
    def tearDownClass(cls):
        cls.front.end()
        shutil.rmtree(cls.path)

    def setUp(self):
        self.connection = self.front.connect()
        self.addCleanup(self.connection.close)
        self.db = self.id().rsplit(".", 1)[1]
        self.run_sql(f"CREATE DATABASE {self.db}", database="default")
        self.run_sql(
            "CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a"
            " SETTINGS non_replicated_deduplication_window = 100"
        )

    def ask(self, body=b"", headers=None, method="POST", **params):
        return ask(self.connection, body, headers, method, **{"database": self.db, **params})

    def run_sql(self, sql, body=b"", **params):
        answer = self.ask(sql.encode() + body, **params)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.text

    def assert_fails(self, answer, code, status):
        self.assertEqual((answer.code, answer.status), (code, status), answer.text)
        self.assertRegex(answer.text, rf"(?s)^Code: {code}\. DB::Exception: .*\([A-Z_]+\) \(version [^)]+\)\)\n$")

    def rows(self, where="1"):
        return self.run_sql(f"SELECT * FROM t WHERE {where} ORDER BY a")

    # Asking

    def test_health(self):
        for path in ("/ping", "/"):
            self.connection.request("GET", path)
            answer = Answer(self.connection.getresponse())
            self.assertEqual((answer.status, answer.body), (200, b"Ok.\n"))
        self.connection.request("GET", "/elsewhere")
        self.assertEqual(Answer(self.connection.getresponse()).status, 404)

    def test_query_in_url_body_and_both(self):
        self.assertEqual(self.ask(method="GET", query="SELECT 1").text, "1\n")
        self.assertEqual(self.ask(query="SELECT 2").text, "2\n")
        self.assertEqual(self.ask(b"SELECT 3").text, "3\n")
        self.assertEqual(self.ask(b"4 + number FROM numbers(1)", query="SELECT").text, "4\n")
        self.assert_fails(self.ask(b" "), 62, 400)
        self.assert_fails(self.ask(b"SELECT 1; SELECT 2"), 62, 400)
        self.assertEqual(self.ask(b"SELECT 1;").text, "1\n")

    def test_version_and_headers(self):
        answer = self.ask(b"SELECT version()", query_id="mine")
        self.assertRegex(answer.text, r"^2\d\.\d+\.")
        self.assertEqual(answer.headers["X-ClickHouse-Query-Id"], "mine")
        self.assertTrue(answer.headers["X-ClickHouse-Server-Display-Name"])
        self.assertEqual(answer.headers["X-ClickHouse-Format"], "TabSeparated")
        self.assertIn("tab-separated", answer.headers["Content-Type"])

    def test_formats(self):
        self.assertEqual(self.ask(b"SELECT 1 AS x", default_format="JSONEachRow").text, '{"x":1}\n')
        self.assertEqual(self.ask(b"SELECT 1 AS x", {"X-ClickHouse-Format": "CSV"}).text, "1\n")
        answer = self.ask(b"SELECT 1 AS x FORMAT JSON")
        self.assertEqual(json.loads(answer.body)["data"], [{"x": 1}])
        self.assertEqual(answer.headers["X-ClickHouse-Format"], "JSON")
        self.assertEqual(self.ask(b"SELECT 258::UInt16 FORMAT RowBinary").body, b"\x02\x01")
        self.assert_fails(self.ask(b"SELECT 1 FORMAT Nonsense"), 73, 404)

    def test_database(self):
        sql = b"SELECT currentDatabase()"
        self.assertEqual(ask(self.connection, sql).text, "default\n")
        self.assertEqual(ask(self.connection, sql, {"X-ClickHouse-Database": self.db}).text, self.db + "\n")
        self.assertEqual(self.ask(sql).text, self.db + "\n")
        self.assert_fails(self.ask(sql, database="nowhere"), 81, 404)

    def test_settings_last_for_one_request(self):
        sql = b"SELECT getSetting('max_block_size')"
        before = self.ask(sql).text
        self.assertEqual(self.ask(sql, max_block_size=123).text, "123\n")
        self.assertEqual(self.ask(sql).text, before)
        self.assert_fails(self.ask(sql, no_such_setting=1), 115, 404)
        self.assert_fails(self.ask(sql, max_block_size="many"), 27, 400)

    def test_parameters(self):
        self.assertEqual(self.ask(b"SELECT {n:UInt8} + 1", param_n=4).text, "5\n")
        # The value comes escaped as in TabSeparated: this \\n is a line feed.
        answer = self.ask(b"SELECT {s:String} FORMAT RowBinary", param_s="a'b\\n\u00e9")
        self.assertEqual(answer.body, b"\x06a'b\n" + "\u00e9".encode())
        self.assertEqual(self.ask(b"SELECT count() FROM {t:Identifier}", param_t="t").text, "0\n")
        self.run_sql("INSERT INTO {t:Identifier} VALUES (1, 'x')", param_t="t")
        self.assertEqual(self.rows(), "1\tx\n")

    def test_parameters_in_a_form(self):
        form = "".join(
            f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("query", "SELECT {s:String}\n"), ("param_s", "a\\\nb\\\\"))
        )
        kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
        answer = self.ask(form.encode() + b"--xyz--\r\n", kind, default_format="TabSeparatedRaw")
        self.assertEqual(answer.text, "a\nb\\\n")

    def test_catalogue_and_ddl(self):
        self.assertEqual(self.run_sql("EXISTS TABLE t"), "1\n")
        self.assertIn("ENGINE = MergeTree", self.run_sql("SHOW CREATE TABLE t"))
        self.run_sql("ALTER TABLE t ADD COLUMN n Nullable(Int32) AFTER a, MODIFY COLUMN s LowCardinality(String)")
        self.assertEqual(
            self.run_sql("SELECT name, type FROM system.columns WHERE table = 't' AND database = currentDatabase()"),
            "a\tInt64\nn\tNullable(Int32)\ns\tLowCardinality(String)\n",
        )
        self.assertEqual(self.run_sql(f"SELECT engine FROM system.databases WHERE name = '{self.db}'"), "Atomic\n")

    def test_tables_of_the_default_database_can_be_renamed(self):
        for sql in (
            "CREATE TABLE r1 (a Int8) ENGINE = MergeTree ORDER BY a",
            "CREATE TABLE r2 (b Int8) ENGINE = MergeTree ORDER BY b",
            "EXCHANGE TABLES r1 AND r2",
            "RENAME TABLE r1 TO r3",
            "SELECT b FROM r3",
            "DROP TABLE r2 SYNC",
            "DROP TABLE r3 SYNC",
        ):
            self.run_sql(sql, database="default")

    def test_final(self):
        self.run_sql("CREATE TABLE r (k Int64, x String, v UInt128, d UInt8)"
                     " ENGINE = ReplacingMergeTree(v, d) ORDER BY k")  # fmt: skip
        self.run_sql("INSERT INTO r VALUES (1, 'old', 1, 0), (2, 'gone', 1, 0)")
        self.run_sql("INSERT INTO r VALUES (1, 'new', 2, 0), (2, '', 2, 1)")
        self.assertEqual(self.run_sql("SELECT k, x FROM r FINAL"), "1\tnew\n")

    def test_get_is_readonly(self):
        answer = self.ask(method="GET", query="CREATE TABLE z (a Int8) ENGINE = Memory")
        self.assert_fails(answer, 164, 500)
        self.assert_fails(self.ask(method="GET", query="INSERT INTO t VALUES (1, '')"), 164, 500)
        self.assertEqual(self.ask(method="GET", query="SELECT count() FROM t", max_threads=1).text, "0\n")

    def test_error_codes(self):
        for sql, code, status in (
            (b"SELECT * FROM nowhere", 60, 404),
            (b"INSERT INTO nowhere VALUES (1)", 60, 404),
            (b"SELECT * FROM nowhere.t", 81, 404),
            (b"SELEC 1", 62, 400),
            (b"SELECT x FROM t", 47, 404),
            (b"CREATE TABLE t (a Int8) ENGINE = Memory", 57, 500),
            (b"INSERT INTO t (a, zz) FORMAT CSV\n1,2", 16, 500),
            (b"INSERT INTO t FORMAT CSV\nx,2", 27, 400),
            (b"SELECT throwIf(1)", 395, 500),
        ):
            with self.subTest(sql=sql):
                self.assert_fails(self.ask(sql), code, status)

    # Inserting

    def test_insert_with_inline_data(self):
        answer = self.ask(b"INSERT INTO t VALUES (1, 'it''s; FORMAT'), (2, '\\0')")
        self.assertEqual(answer.summary["written_rows"], "2")
        self.run_sql("INSERT INTO t (a, s) FORMAT CSV\n3,three\n")
        self.run_sql('insert into t format JSONEachRow {"a": 4, "s": "four"}')
        self.run_sql("INSERT INTO t SELECT a + 10, s FROM t WHERE a = 3")
        self.assertEqual(self.rows(), "1\tit\\'s; FORMAT\n2\t\\0\n3\tthree\n4\tfour\n13\tthree\n")

    def test_insert_of_binary_data(self):
        # What looks like text to a parser must come through untouched.
        strings = [b"\n", b"\0\0'--", b"; SELECT 1 /*", bytes(range(256)) * 40]
        data = b"".join(
            struct.pack("<q", i) + leb128(len(s)) + s for i, s in enumerate(strings)
        )
        for how in ("url", "body"):
            sql = "INSERT INTO t (a, s) FORMAT RowBinary"
            answer = self.ask(data, query=sql) if how == "url" else self.ask(sql.encode() + b"\n" + data)
            self.assertEqual(answer.summary.get("written_rows"), "4", answer.text)
            got = self.ask(b"SELECT s FROM t ORDER BY a FORMAT RowBinary").body
            self.assertEqual(got, b"".join(leb128(len(s)) + s for s in strings))
            self.run_sql("TRUNCATE TABLE t")

    def test_insert_in_chunks(self):
        native = self.ask(b"SELECT number::Int64 AS a, toString(number) AS s FROM numbers(1000) FORMAT Native").body
        for size in (7, 4096, len(native)):
            chunks = (native[i : i + size] for i in range(0, len(native), size))
            answer = self.ask(chunks, query="INSERT INTO t FORMAT Native", deduplicate_insert="disable")
            self.assertEqual(answer.summary.get("written_rows"), "1000", answer.text)
        self.assertEqual(self.run_sql("SELECT count(), sum(a) FROM t"), f"3000\t{3 * 499500}\n")

    def test_query_in_chunks(self):
        sql = b"INSERT INTO t /* VALUES */ (a, s) FORMAT CSV\n1,x\n"
        self.assertEqual(self.ask(iter([bytes([c]) for c in sql])).status, 200)
        self.assertEqual(self.rows(), "1\tx\n")

    def test_failed_insert_leaves_nothing_and_the_connection_usable(self):
        sock = self.connection.sock
        for body in (b"1,x\n2,y\nthree,z\n", b"1,x\n" * 200_000 + b"no\n"):
            self.assert_fails(self.ask(body, query="INSERT INTO t FORMAT CSV"), 27, 400)
            self.assertEqual(self.rows(), "")
        big = b"1,x\n" * 500_000
        self.assert_fails(self.ask(big, query="INSERT INTO nowhere FORMAT CSV"), 60, 404)
        self.assert_fails(self.ask(iter([big]), query="INSERT INTO t FORMAT CSV", nonsense=1), 115, 404)
        self.assertEqual(self.rows(), "")
        self.assertIs(self.connection.sock, sock)

    def test_compressed_insert(self):
        native = self.ask(b"SELECT number::Int64 AS a, 'x' AS s FROM numbers(200000) FORMAT Native").body
        zstd = zstandard.ZstdCompressor().compress(native)
        for name, body in (
            ("lz4", front.frame_blocks(native)),
            ("zstd", frame(0x90, zstd, len(native))),
            ("none", frame(0x02, native, len(native))),
        ):
            with self.subTest(method=name):
                answer = self.ask(body, query="INSERT INTO t FORMAT Native", decompress=1)
                self.assertEqual(answer.summary.get("written_rows"), "200000", answer.text)

    def test_broken_compressed_insert(self):
        good = frame(0x02, b"1,x\n", 4)
        # As other implementations compute it.
        self.assertEqual(good.hex(), "0238a30b2891aeacee4d9980cc3862dc020d00000004000000312c780a")
        query = {"query": "INSERT INTO t FORMAT CSV", "decompress": 1}
        self.assert_fails(self.ask(good[:-1] + b"!", **query), 40, 500)
        self.assert_fails(self.ask(good + good[:-1], **query), 33, 500)
        self.assert_fails(self.ask(frame(0x55, b"1,x\n", 4), **query), 89, 500)
        self.assert_fails(self.ask(frame(0x82, b"\xff\xff", 4), **query), 271, 500)
        self.assertEqual(self.rows(), "")
        self.assertEqual(self.ask(good, **query).status, 200)
        self.assertEqual(self.rows(), "1\tx\n")

    def test_content_encoding(self):
        data = b"1,x\n" * 1000
        for name, body in (
            ("gzip", gzip.compress(data)),
            ("lz4", lz4.frame.compress(data)),
            ("zstd", zstandard.ZstdCompressor().compress(data)),
        ):
            with self.subTest(encoding=name):
                answer = self.ask(body, {"Content-Encoding": name}, query="INSERT INTO t FORMAT CSV")
                self.assertEqual(answer.summary.get("written_rows"), "1000", answer.text)
        cut = gzip.compress(data)[:-9]
        self.assert_fails(self.ask(cut, {"Content-Encoding": "gzip"}, query="INSERT INTO t FORMAT CSV"), 33, 500)

    def test_compressed_answers(self):
        sql = b"SELECT repeat('x', 100) FROM numbers(30000)"
        plain = self.ask(sql).body
        framed = self.ask(sql, compress=1).body
        self.assertLess(len(framed), len(plain) / 10)
        self.assertEqual(b"".join(front.unframe_blocks([framed])), plain)
        self.assertEqual(self.ask(b"SELECT 1 WHERE 0", compress=1).body, b"")
        answer = self.ask(sql, {"Accept-Encoding": "gzip"}, enable_http_compression=0)
        self.assertEqual((answer.body, answer.headers["Content-Encoding"]), (plain, None))
        zipped = self.ask(sql, {"Accept-Encoding": "gzip"})
        self.assertEqual(zipped.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(zipped.body), plain)

    def test_deduplication_token(self):
        def insert(row, **params):
            self.assertEqual(self.ask(row, query="INSERT INTO t FORMAT CSV", **params).status, 200)
            return int(self.run_sql("SELECT count() FROM t"))

        self.assertEqual(insert(b"1,x", insert_deduplication_token="one"), 1)
        self.assertEqual(insert(b"2,y", insert_deduplication_token="one"), 1)
        self.assertEqual(insert(b"1,x", insert_deduplication_token="two"), 2)
        self.assertEqual(insert(b"1,x", insert_deduplication_token="two", deduplicate_insert="disable"), 3)
        self.run_sql("INSERT INTO t SETTINGS insert_deduplication_token = 'one' VALUES (3, 'z')")
        self.run_sql("INSERT INTO t FORMAT CSV SETTINGS insert_deduplication_token = 'two'\n", b"3,z")
        self.assertEqual(int(self.run_sql("SELECT count() FROM t")), 3)

    def test_client_that_hangs_up_in_the_middle(self):
        head = (
            f"POST /?database={self.db}&query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\n"
            "Host: x\r\n%s\r\n\r\n"
        )
        for start in (
            head % "Content-Length: 1000" + "1,x\n2,y\n",
            head % "Transfer-Encoding: chunked" + "8\r\n1,x\n2,y\n\r\n",
            head % "Transfer-Encoding: chunked" + "8\r\n1,x\n",
        ):
            with socket.create_connection(("127.0.0.1", self.front.port)) as sock:
                sock.sendall(start.encode())
                time.sleep(0.1)
        time.sleep(0.3)
        self.assertEqual(self.rows(), "")

    def test_many_connections_at_once(self):
        failures = []

        def insert(worker):
            connection = self.front.connect()
            for i in range(5):
                data = b"".join(b"%d,%d\n" % (worker, i * 1000 + n) for n in range(1000))
                answer = ask(connection, data, database=self.db, query="INSERT INTO t FORMAT CSV")
                count = ask(connection, f"SELECT count() FROM {self.db}.t WHERE a = {worker}".encode())
                if (answer.status, count.text) != (200, f"{(i + 1) * 1000}\n"):
                    failures.append((answer.text, count.text))
            connection.close()

        threads = [threading.Thread(target=insert, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.run_sql("SELECT count(), uniqExact(a, s) FROM t"), "40000\t40000\n")


class PasswordTest(unittest.TestCase):
    def test_password(self):
        path = tempfile.mkdtemp(prefix="clickhouse_http.")
        self.addCleanup(shutil.rmtree, path)
        secret = Path(path, "password")
        secret.write_text("s3cret\n")
        running = Front(path + "/data", "--user", "repl", CLICKHOUSE_PASSWORD_FILE=str(secret))
        self.addCleanup(running.end)
        connection = running.connect()
        self.addCleanup(connection.close)

        def basic(text):
            return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

        for headers, params, status in (
            ({"X-ClickHouse-User": "repl", "X-ClickHouse-Key": "s3cret"}, {}, 200),
            (basic("repl:s3cret"), {}, 200),
            ({}, {"user": "repl", "password": "s3cret"}, 200),
            ({"X-ClickHouse-User": "repl", "X-ClickHouse-Key": "wrong"}, {}, 403),
            ({"X-ClickHouse-User": "other", "X-ClickHouse-Key": "s3cret"}, {}, 403),
            (basic("repl:wrong"), {}, 403),
            ({}, {"user": "repl"}, 403),
            ({}, {}, 401),
        ):
            with self.subTest(headers=headers, params=params):
                answer = ask(connection, b"SELECT 1", headers, **params)
                self.assertEqual(answer.status, status, answer.text)
                if status != 200:
                    self.assertEqual(answer.code, 516)
        connection.request("GET", "/ping")
        self.assertEqual(Answer(connection.getresponse()).status, 200)


class EndTest(unittest.TestCase):
    def setUp(self):
        self.path = tempfile.mkdtemp(prefix="clickhouse_http.")
        self.addCleanup(shutil.rmtree, self.path)

    def test_sigterm_finishes_what_runs(self):
        running = Front(self.path)
        idle = running.connect()
        self.assertEqual(ask(idle, b"SELECT 1").text, "1\n")
        answers = []
        slow = threading.Thread(
            target=lambda: answers.append(ask(running.connect(), b"SELECT sleep(1)").text)
        )
        slow.start()
        time.sleep(0.3)
        self.assertEqual(running.end(), 0)
        slow.join()
        self.assertEqual(answers, ["0\n"])
        idle.close()

    def test_data_survives_a_kill_and_a_stop(self):
        rows = 0
        for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            running = Front(self.path)
            connection = running.connect()
            for database in ("default", "other"):
                ask(connection, b"CREATE DATABASE IF NOT EXISTS " + database.encode())
                ask(connection, b"CREATE TABLE IF NOT EXISTS t (a Int64) ENGINE = MergeTree ORDER BY a"
                    b" SETTINGS non_replicated_deduplication_window = 100", database=database)  # fmt: skip
                self.assertEqual(ask(connection, b"SELECT count() FROM t", database=database).text, f"{rows}\n")
                # The token's memory is on disk, too.
                for token in {rows, max(rows - 1, 0)}:
                    ask(connection, b"1", database=database, query="INSERT INTO t FORMAT CSV",
                        insert_deduplication_token=token)  # fmt: skip
            # The next insert is under way when the process ends, and leaves nothing.
            if how == signal.SIGKILL:
                sock = socket.create_connection(("127.0.0.1", running.port))
                self.addCleanup(sock.close)
                sock.sendall(b"POST /?query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\nHost: x\r\n"
                             b"Content-Length: 100\r\n\r\n1\n2\n")  # fmt: skip
                time.sleep(0.1)
            connection.close()
            self.assertEqual(running.end(how), 0 if how == signal.SIGTERM else -9)
            rows += 1

    def test_one_process_per_path(self):
        running = Front(self.path)
        self.addCleanup(running.end)
        second = subprocess.run(
            [sys.executable, str(HERE / "clickhouse_http.py"), "--port", "0", "--path", self.path],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        self.assertEqual(second.returncode, 1)
        self.assertIn("another process", second.stderr)


class SplitInsertTest(unittest.TestCase):
    def test_split(self):
        for text, expected in (
            ("INSERT INTO t VALUES (1)", ("INSERT INTO t ", "Values", " (1)")),
            ("insert into t(a,b)values(1)", ("insert into t(a,b)", "Values", "(1)")),
            ("INSERT INTO t FORMAT CSV\n1", ("INSERT INTO t ", "CSV", "1")),
            ("INSERT INTO t FORMAT CSV \r\n\n1", ("INSERT INTO t ", "CSV", "\n1")),
            ("INSERT INTO t FORMAT CSV", ("INSERT INTO t ", "CSV", "")),
            ("-- FORMAT x\n INSERT INTO `a format b`.values FORMAT CSV 1",
             ("-- FORMAT x\n INSERT INTO `a format b`.values ", "CSV", "1")),
            ("INSERT INTO t SETTINGS a = 'VALUES' VALUES (1)",
             ("INSERT INTO t SETTINGS a = 'VALUES' ", "Values", " (1)")),
            ("INSERT INTO t FORMAT CSV SETTINGS a=1, b='x'\n1",
             ("INSERT INTO t  SETTINGS a=1, b='x'", "CSV", "1")),
            ("INSERT INTO FUNCTION f('VALUES', x(1)) FORMAT Native\n", ("INSERT INTO FUNCTION f('VALUES', x(1)) ", "Native", "")),
            ("INSERT INTO t SELECT 1 FORMAT CSV", None),
            ("INSERT INTO t (a) SELECT 'VALUES'", None),
            ("SELECT 'INSERT' FORMAT CSV", None),
            ("INSERT INTO t 'VALUES ", None),
        ):  # fmt: skip
            with self.subTest(text=text):
                got = front.split_insert(text.encode(), complete=True)
                if got:
                    got = (got[0].decode(), got[1], text[got[2] :])
                self.assertEqual(got, expected)

    def test_does_not_guess_from_half_a_query(self):
        text = b"INSERT INTO t FORMAT CSVWithNames\n"
        for end in range(len(text)):
            self.assertIsNone(front.split_insert(text[:end], complete=False), text[:end])
        self.assertEqual(front.split_insert(text, complete=False)[1], "CSVWithNames")


def leb128(number):
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def frame(method, packed, raw_size):
    block = struct.pack("<BII", method, len(packed) + 9, raw_size) + packed
    return front.city_checksum(block) + block


if __name__ == "__main__":
    unittest.main()
