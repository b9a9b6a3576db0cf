#!/usr/bin/env python3
"""ClickHouse's HTTP interface in front of the embedded engine of chDB.

For development and tests where no ClickHouse server is to be had: the engine is
the real one (MergeTree on disk, the real parser and formats), and this file
speaks as much of the server's HTTP protocol as clients need. It is no server
for production: one user, no limits, answers built in memory.

    clickhouse_http.py --port 8123 --path /some/dir [--user U] [--password P]

Prints `listening on 127.0.0.1:PORT` when ready. The password may also come from
CLICKHOUSE_PASSWORD or from the file that CLICKHOUSE_PASSWORD_FILE names; without
one everybody is let in. SIGTERM finishes what is running and exits with 0.

How it works: every request gets a chDB connection of its own (0.3 ms), so that
settings, database and readonly are the request's and end with it. The data of an
INSERT goes to the engine in pieces as it arrives, and never inside the query's
text, which the engine would cut at the first odd byte.
"""

import argparse
import base64
import binascii
import hmac
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.block
import lz4.frame
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

PIECE = 1 << 20  # how much of a body is read, or compressed, at a time

# URL parameters that speak to the HTTP interface; any other is a setting.
NOT_SETTINGS = {
    "query", "database", "default_format", "user", "password", "quota_key", "role",
    "query_id", "session_id", "session_timeout", "session_check", "close_session",
    "compress", "decompress", "buffer_size", "wait_end_of_query", "stacktrace",
    "client_protocol_version",
}  # fmt: skip

# Which HTTP status the server gives for which error code; 500 for all others.
STATUS_OF_CODE = {
    **dict.fromkeys([194], 401),
    **dict.fromkeys([192, 193, 497, 512, 516], 403),
    **dict.fromkeys([6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167,
                     168, 223, 321, 376, 427, 441, 675, 676], 400),
    **dict.fromkeys([46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511], 404),
    **{48: 501, 76: 503, 159: 408, 209: 503, 229: 413, 381: 411, 439: 503, 779: 415},
}  # fmt: skip

CONTENT_TYPES = [
    ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
    ("JSONCompactEachRow", "application/x-ndjson; charset=UTF-8"),
    ("JSON", "application/json; charset=UTF-8"),
    ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
    ("TSV", "text/tab-separated-values; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8"),
    ("Pretty", "text/plain; charset=UTF-8"),
    ("Vertical", "text/plain; charset=UTF-8"),
    ("Values", "text/plain; charset=UTF-8"),
    ("XML", "application/xml; charset=UTF-8"),
    ("", "application/octet-stream"),
]


class ClientGone(Exception):
    """The client hung up, or fell silent, in the middle of its request."""


class DBError(Exception):
    """An error as ClickHouse words it: `Code: N. DB::Exception: … (NAME)`."""

    def __init__(self, code, text, name):
        super().__init__(f"Code: {code}. DB::Exception: {text} ({name})")
        self.code = code


def engine_error(error):
    """What chDB raised, as (code, text of the HTTP body)."""
    text = str(error)
    start = re.search(r"Code: (\d+)\. DB::Exception: ", text)
    if not start:  # chDB's own words
        return 1001, f"Code: 1001. DB::Exception: {text} (STD_EXCEPTION)"
    code = int(start[1])
    # Wrappers repeat the start and the end of the message, some with a version.
    text = text[start.start() :]
    while text.startswith(start[0] * 2):
        text = text[len(start[0]) :]
    return code, re.sub(r"( \(version [^)]*\)(\. \([A-Z_0-9]+\))?)+\s*$", "", text)


# ------------------------------------------------------------------ compression


def city_checksum(data):
    """CityHash128 (of version 1.0.2) as the 16 bytes that precede a block."""
    number = CityHash128(data)  # its two halves, the first on top
    return struct.pack("<QQ", number >> 64, number & 0xFFFFFFFFFFFFFFFF)


def frame_blocks(data):
    """ClickHouse's own compressed framing, LZ4: what `compress=1` asks for."""
    out = []
    for start in range(0, len(data), PIECE):
        raw = data[start : start + PIECE]
        packed = lz4.block.compress(raw, store_size=False)
        block = struct.pack("<BII", 0x82, len(packed) + 9, len(raw)) + packed
        out += (city_checksum(block), block)
    return b"".join(out)


def unframe_blocks(pieces):
    """The reverse, for `decompress=1`: LZ4, ZSTD or stored blocks."""
    buffer = bytearray()
    zstd = zstandard.ZstdDecompressor()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= 25:
            method, packed_size, raw_size = struct.unpack_from("<BII", buffer, 16)
            if packed_size < 9 or max(packed_size, raw_size) > 1 << 30:
                raise DBError(39, f"Too large size_compressed_without_checksum: {packed_size}. "
                              "Most likely corrupted data.", "TOO_LARGE_SIZE_COMPRESSED")  # fmt: skip
            end = 16 + packed_size
            if len(buffer) < end:
                break
            checksum, block = bytes(buffer[:16]), bytes(buffer[16:end])
            del buffer[:end]
            if city_checksum(block) != checksum:
                raise DBError(40, "Checksum doesn't match: corrupted data. Reference: "
                              f"{checksum.hex()}. Actual: {city_checksum(block).hex()}.",
                              "CHECKSUM_DOESNT_MATCH")  # fmt: skip
            try:
                if method == 0x82:
                    raw = lz4.block.decompress(memoryview(block)[9:], uncompressed_size=raw_size)
                elif method == 0x90:
                    raw = zstd.decompress(memoryview(block)[9:], max_output_size=raw_size)
                elif method == 0x02:
                    raw = block[9:]
                else:
                    raise DBError(89, f"Unknown codec family code: {method}", "UNKNOWN_CODEC")
            except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
                raise DBError(271, f"Cannot decompress: {error}", "CANNOT_DECOMPRESS") from error
            if len(raw) != raw_size:
                raise DBError(271, "Cannot decompress: wrong size", "CANNOT_DECOMPRESS")
            yield raw
    if buffer:
        raise DBError(33, f"Cannot read all data. Bytes read: {len(buffer)}. A compressed block "
                      "is cut short.", "CANNOT_READ_ALL_DATA")  # fmt: skip


def decode_content(pieces, encoding):
    """A request's Content-Encoding taken off."""
    if encoding in ("gzip", "deflate"):
        decoder = zlib.decompressobj(47)  # gzip or zlib, whichever it is
    elif encoding == "lz4":
        decoder = lz4.frame.LZ4FrameDecompressor()
    elif encoding == "zstd":
        decoder = zstandard.ZstdDecompressor().decompressobj()
    else:
        raise DBError(48, f"Unknown compression method '{encoding}'", "NOT_IMPLEMENTED")
    for piece in pieces:
        try:
            raw = decoder.decompress(piece)
        except (zlib.error, RuntimeError, zstandard.ZstdError, EOFError) as error:
            raise DBError(354, f"Cannot decompress the body: {error}", "ZLIB_INFLATE_FAILED") from error
        if raw:
            yield raw
    if not decoder.eof:
        raise DBError(33, "Cannot read all data: the compressed body is cut short",
                      "CANNOT_READ_ALL_DATA")  # fmt: skip


ENCODERS = {
    "lz4": lz4.frame.compress,
    "gzip": lambda data: zlib.compress(data, 1, 31),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}

# ------------------------------------------------------------- reading the query

TOKEN = re.compile(
    rb"""(?P<space> (?: \s+ | --[^\n]*(?:\n|\Z) | \#[ !][^\n]*(?:\n|\Z) | /\*.*?\*/ )+ )
       | (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` )
       | (?P<word> [A-Za-z_0-9]+ )
       | (?P<other> . )""",
    re.VERBOSE | re.DOTALL,
)
# Settings may also stand behind the format: INSERT INTO t FORMAT Native SETTINGS a = 1
SETTING = rb"\w+\s*=\s*(?:'(?:[^'\\]|\\.)*'|[\w.+-]+)"
LATE_SETTINGS = re.compile(rb"\s*SETTINGS\s+" + SETTING + rb"(?:\s*,\s*" + SETTING + rb")*", re.I)


def words_outside_brackets(text):
    """The bare words of a query that are no part of a.b, as (WORD, start, end)."""
    depth, dotted = 0, False
    for token in TOKEN.finditer(text):
        kind, value = token.lastgroup, token[0]
        if value in (b"'", b'"', b"`") or text.startswith(b"/*", token.start()) and kind == "other":
            return  # a string or comment whose end we do not have
        if kind == "other":
            depth += (value in b"([{") - (value in b")]}")
        elif kind == "word" and depth == 0 and not dotted:
            yield value.upper(), token.start(), token.end()
        if kind != "space":
            dotted = value == b"."


def split_insert(text, complete):
    """Splits an INSERT that carries data into (statement, format, start of data).

    Gives None for everything else. `complete` says that no more text follows;
    otherwise None may also mean that there is too little text to tell.
    """
    words = words_outside_brackets(text)
    if next(words, (b"",))[0] != b"INSERT":
        return None
    for word, start, end in words:
        if not complete and end == len(text):
            return None  # the word may go on
        if word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
            return None
        if word == b"VALUES":
            return text[:start], "Values", end
        if word == b"FORMAT":
            name = next(words, None)
            if not name or (not complete and name[2] == len(text)):
                return None
            statement, end = text[:start], name[2]
            late = LATE_SETTINGS.match(text, end)
            if late:
                statement, end = statement + late[0], late.end()
            # Blanks and one end of line part the query from the data.
            end = re.compile(rb"[ \t\f]*(?:\r?\n)?").match(text, end).end()
            return statement, text[name[1] : name[2]].decode(), end
    return None


def output_format(text, default):
    """The format a statement asks for in its FORMAT clause."""
    words = list(words_outside_brackets(text))
    for (word, _, _), (_, start, end) in reversed(list(zip(words, words[1:]))):
        if word == b"FORMAT":
            return text[start:end].decode()
    return default


def form_fields(body, boundary):
    """The fields of a multipart form: another way to pass the query and parameters."""
    fields = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            raise DBError(48, "External tables are not supported here", "NOT_IMPLEMENTED")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        if name:
            fields[name[1].decode()] = value.decode()
    return fields


def make_summary(read=(0, 0), written=(0, 0), result=(0, 0)):
    """What X-ClickHouse-Summary holds, from pairs of (rows, bytes)."""
    return {
        "read_rows": read[0], "read_bytes": read[1],
        "written_rows": written[0], "written_bytes": written[1],
        "total_rows_to_read": 0,
        "result_rows": result[0], "result_bytes": result[1],
    }  # fmt: skip


def quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(text):
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


# ------------------------------------------------------------------- the engine


class Engine:
    def __init__(self, path):
        self.path = str(Path(path).absolute())
        Path(self.path).mkdir(parents=True, exist_ok=True)
        # Held for as long as we run: the engine ends with its last connection.
        self.keeper = chdb.connect(self.path)
        self.version = self.ask("SELECT version()")
        self.timezone = self.ask("SELECT timezone()")
        self.use_atomic_default()

    def ask(self, sql):
        return self.keeper.query(sql, "TabSeparatedRaw").bytes().decode().rstrip("\n")

    def use_atomic_default(self):
        """Gives the database `default` the engine it has in a server.

        chDB lays an Overlay over it in which tables cannot be renamed. A server
        has Atomic, and so have we, from the first start on.
        """
        if self.ask("SELECT engine FROM system.databases WHERE name = 'default'") == "Atomic":
            return
        # The link is there as soon as the database was ours once, also when it never held a table.
        if os.path.lexists(Path(self.path, "metadata", "default")):
            self.keeper.query("DETACH DATABASE default")
            self.keeper.query("ATTACH DATABASE default")
        else:
            self.keeper.query("DROP DATABASE default SYNC")
            self.keeper.query("CREATE DATABASE default ENGINE = Atomic")

    def connect(self, database, settings, readonly):
        """A connection with the request's database and settings."""
        connection = chdb.connect(self.path)
        try:
            if database:
                connection.query("USE " + quote_name(database))
            if settings:
                pairs = ", ".join(f"{quote_name(k)} = {quote(v)}" for k, v in settings.items())
                connection.query("SET " + pairs)
            if readonly:
                connection.query("SET readonly = 2")
        except Exception:
            connection.close()
            raise
        return connection

    def close(self):
        self.keeper.close()


# --------------------------------------------------------------------- the front


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address, engine, user, password):
        super().__init__(address, Handler)
        self.engine, self.user, self.password = engine, user, password
        self.display_name = socket.gethostname()
        self.stopping = False
        self.running = 0  # requests being worked on
        self.changed = threading.Condition()

    def begin(self):
        with self.changed:
            if not self.stopping:
                self.running += 1
            return not self.stopping

    def end(self):
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def drain(self, seconds):
        """Lets no new request in and waits for those that run."""
        with self.changed:
            self.stopping = True
            return self.changed.wait_for(lambda: self.running == 0, seconds)

    def handle_error(self, request, client_address):
        # A client that hangs up is none of our trouble.
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # TCP_NODELAY
    rbufsize = 1 << 17
    timeout = 30  # for the next request, or the next piece of a body, as in the server

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.serve(readonly=True)

    def do_POST(self):
        self.serve(readonly=False)

    do_HEAD = do_GET
    do_PUT = do_POST

    def serve(self, readonly):
        if not self.server.begin():
            self.close_connection = True
            return
        try:
            self.query_id, self.ask_for_password = None, False
            self.body = self.read_body()
            url = urlsplit(self.path)
            if url.path in ("/ping", "/replicas_status"):
                self.reply(200, b"Ok.\n")
            elif url.path != "/":
                self.reply(404, b"There is no handle " + url.path.encode() + b"\n\nUse / or /ping for health checks.\n")
            elif not url.query and self.command != "POST":
                self.reply(200, b"Ok.\n")
            else:
                self.run_query(dict(parse_qsl(url.query, keep_blank_values=True)), readonly)
        except (ClientGone, ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.server.end()
            if self.server.stopping:
                self.close_connection = True

    # The body, as it comes over the wire.

    def read_exactly(self, size):
        data = self.rfile.read(size)
        if len(data) < size:
            raise ClientGone
        return data

    def read_line(self):
        line = self.rfile.readline(1 << 16)
        if not line.endswith(b"\n"):
            raise ClientGone
        return line.strip()

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while True:
                try:
                    left = int(self.read_line().split(b";")[0], 16)
                except ValueError:
                    raise ClientGone from None  # no telling where the next request starts
                if left == 0:
                    break
                while left:
                    piece = self.read_exactly(min(left, PIECE))
                    left -= len(piece)
                    yield piece
                self.read_line()
            while self.read_line():
                pass  # trailers
        else:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal():
                raise ClientGone
            left = int(length)
            while left:
                piece = self.read_exactly(min(left, PIECE))
                left -= len(piece)
                yield piece

    # One query.

    def run_query(self, params, readonly):
        started = time.monotonic()
        self.query_id = params.get("query_id") or self.headers.get("X-ClickHouse-Query-Id") or str(uuid.uuid4())
        try:
            self.check_user(params)
            self.default_format = (params.get("default_format")
                                   or self.headers.get("X-ClickHouse-Format") or "TabSeparated")  # fmt: skip
            pieces = self.body
            encoding = self.headers.get("Content-Encoding", "identity").lower()
            if encoding != "identity":
                pieces = decode_content(pieces, encoding)
            if params.get("decompress", "0") not in ("0", "false", ""):
                pieces = unframe_blocks(pieces)
            if self.headers.get_content_type() == "multipart/form-data":
                params.update(form_fields(b"".join(pieces), self.headers.get_boundary("")))
                pieces = iter(())
            data, format, summary = self.execute(params, pieces, readonly)
        except DBError as error:
            self.fail(error.code, str(error))
            return
        except (chdb.ChdbError, RuntimeError, UnicodeDecodeError) as error:
            self.fail(*engine_error(error))
            return
        summary["elapsed_ns"] = int((time.monotonic() - started) * 1e9)
        summary = {key: str(value) for key, value in summary.items()}  # numbers come as strings
        headers = {
            "Content-Type": next(kind for start, kind in CONTENT_TYPES if format.startswith(start)),
            "X-ClickHouse-Format": format,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
        }
        if params.get("compress", "0") not in ("0", "false", ""):
            data = frame_blocks(data)
        elif params.get("enable_http_compression", "1") not in ("0", "false", ""):
            accepted = self.headers.get("Accept-Encoding", "").lower()
            encoding = next((name for name in ENCODERS if name in accepted), None)
            if encoding:
                data = ENCODERS[encoding](data)
                headers["Content-Encoding"] = encoding
        self.reply(200, data, headers)

    def check_user(self, params):
        basic = self.headers.get("Authorization", "")
        given = True
        if "X-ClickHouse-User" in self.headers or "X-ClickHouse-Key" in self.headers:
            user = self.headers.get("X-ClickHouse-User", "default")
            password = self.headers.get("X-ClickHouse-Key", "")
        elif basic.startswith("Basic "):
            try:
                user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user, password = "", ""
        else:
            given = "user" in params or "password" in params
            user, password = params.get("user", "default"), params.get("password", "")
        if not self.server.password:
            return
        right = hmac.compare_digest(password.encode(), self.server.password.encode())
        if user != self.server.user or not right:
            self.ask_for_password = not given
            raise DBError(516, f"{user}: Authentication failed: password is incorrect, or there is no user "
                          "with such name.", "AUTHENTICATION_FAILED")  # fmt: skip

    def execute(self, params, pieces, readonly):
        settings, query_params = {}, {}
        for name, value in params.items():
            if name.startswith("param_"):
                query_params[name[6:]] = value
            elif name not in NOT_SETTINGS:
                settings[name] = value
        database = params.get("database") or self.headers.get("X-ClickHouse-Database")

        # The query is what the URL says followed by the body; of an INSERT no
        # more is taken from the body than it takes to see where its data starts.
        text = bytearray(params.get("query", "").encode("utf-8", "surrogateescape"))
        if text:
            text += b"\n"
        insert = split_insert(text, complete=False) if text else None
        complete = False
        while not insert and not complete:
            piece = next(pieces, None)
            complete = piece is None
            text += piece or b""
            insert = split_insert(text, complete)

        connection = self.server.engine.connect(database, settings, readonly)
        try:
            if insert:
                return self.insert(connection, text, insert, pieces, query_params)
            if not text.strip():
                raise DBError(62, "Syntax error: failed at position 1 (end of query): . Empty query",
                              "SYNTAX_ERROR")  # fmt: skip
            sql = text.decode()
            if connection._conn.classify_query(sql)["statement_count"] > 1:
                # chDB would run them all; a server does not.
                raise DBError(62, "Syntax error (Multi-statements are not allowed)", "SYNTAX_ERROR")
            result = connection.query(sql, self.default_format, params=query_params)
            return (
                result.bytes(),
                output_format(text, self.default_format),
                make_summary(
                    read=(result.storage_rows_read(), result.storage_bytes_read()),
                    written=(result.rows_written(), result.bytes_written()),
                    result=(result.rows_read(), result.size()),
                ),
            )
        finally:
            connection.close()

    def insert(self, connection, text, split, pieces, query_params):
        statement, format, start = split
        for name, value in query_params.items():
            connection.query(f"SET {quote_name('param_' + name)} = {quote(value)}")
        inserter = connection.send_insert(bytes(statement).decode(), format)
        try:
            if start < len(text):
                inserter.append(bytes(text[start:]))
            for piece in pieces:
                inserter.append(piece)
            result = inserter.finish()
            written = (result.rows_written, result.bytes_written)
            return b"", format, make_summary(written=written, result=written)
        finally:
            inserter.cancel()  # does nothing after finish()

    # The answer.

    def fail(self, code, text):
        status = STATUS_OF_CODE.get(code, 500)
        headers = {"Content-Type": "text/plain; charset=UTF-8", "X-ClickHouse-Exception-Code": str(code)}
        if code == 516 and self.ask_for_password:
            status = 401
            headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        body = f"{text} (version {self.server.engine.version} (chDB))\n"
        self.reply(status, body.encode(), headers)

    def reply(self, status, body, headers=()):
        # As the server does: take in what is left of the request first, so that
        # the client gets to read the answer and can use the connection again.
        for _ in self.body:
            pass
        head = {
            "Content-Type": "text/html; charset=UTF-8",
            "X-ClickHouse-Server-Display-Name": self.server.display_name,
            **({"X-ClickHouse-Query-Id": self.query_id} if self.query_id else {}),
            **dict(headers),
            "Content-Length": str(len(body)),
            "Connection": "close" if self.close_connection or self.server.stopping else "Keep-Alive",
        }
        self.send_response_only(status)
        for name, value in head.items():
            self.send_header(name, value)
        # One piece for what is small: one segment and one system call.
        self._headers_buffer.append(b"\r\n")
        start = b"".join(self._headers_buffer)
        self._headers_buffer = []
        if self.command == "HEAD":
            body = b""
        if len(body) < 65536:
            self.wfile.write(start + body)
        else:
            self.wfile.write(start)
            self.wfile.write(body)


def read_password(given):
    if given is not None:
        return given
    path = os.environ.get("CLICKHOUSE_PASSWORD_FILE")
    if path:
        return Path(path).read_text().rstrip("\r\n")
    return os.environ.get("CLICKHOUSE_PASSWORD", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8123, help="0 picks a free one")
    parser.add_argument("--path", required=True, help="directory of the data")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", help="better: CLICKHOUSE_PASSWORD or CLICKHOUSE_PASSWORD_FILE")
    args = parser.parse_args()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())

    try:
        engine = Engine(args.path)
    except (chdb.ChdbError, RuntimeError) as error:
        sys.exit(f"cannot open {args.path} (does another process have it open?): {error}")
    server = Server(("127.0.0.1", args.port), engine, args.user, read_password(args.password))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)

    stop.wait()
    server.shutdown()
    server.server_close()
    if not server.drain(30):
        print("stopping although requests are still running", file=sys.stderr)
    engine.close()
    sys.stdout.flush()
    # Threads of idle connections are left: an ordinary exit would wait for the
    # engine's own threads while they still hold it.
    os._exit(0)


if __name__ == "__main__":
    main()
