//! What is done at a server while its stream is recorded. What each comes out as stands in
//! `tests/golden/tests/scenarios.rs`.
//!
//! A transaction is streamed before its end when its changes exceed `logical_decoding_work_mem`, set to
//! the 64 kB that are its least. They are counted before the publication is looked at, so rows of a table that
//! is not published, `ballast`, make it full without making the files long.

/// One step of a scenario.
pub(crate) enum Step {
    /// SQL, sent as one query: one transaction unless it says otherwise.
    Sql(&'static str),
    /// Waits for the next message with this first byte. What a transaction did is only sure to be sent when
    /// it is sent before the transaction is rolled back.
    Await(u8),
}

/// Something to do at a server.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Lowest protocol version under which it shows something.
    pub(crate) protocol: u8,
    pub(crate) binary: bool,
    /// Run before the slot is made, in a new database; makes publication `p`.
    pub(crate) setup: &'static str,
    pub(crate) steps: &'static [Step],
}

use Step::{Await, Sql};

const STREAM_STOP: u8 = b'E';
const PREPARE: u8 = b'P';
const STREAM_PREPARE: u8 = b'p';

const SAMPLES: &str = r#"
    CREATE SCHEMA "Shop";
    CREATE TYPE "Shop".mood AS ENUM ('calm', 'so "so"');
    CREATE DOMAIN quantity AS integer CHECK (VALUE >= 0);
    CREATE TABLE "Shop"."Größen" (id bigint PRIMARY KEY, "select" numeric(12,2), note varchar(20), raw bytea,
        mood "Shop".mood, pieces quantity, at timestamptz, tags text[], ok boolean, doc jsonb, acl aclitem);
    CREATE PUBLICATION p FOR ALL TABLES"#;

const SAMPLE_ROWS: &[Step] = &[Sql(r#"
    SET timezone = 'UTC';
    INSERT INTO "Shop"."Größen" VALUES
        (1, 10.50, 'naïve', '\x00ff', 'so "so"', 3, '2026-03-18 12:34:56.789+00', '{a,NULL,"b c"}', true,
         '{"k": 1}', '=r/postgres'),
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (-3, 'NaN', '', '', 'calm', 0, 'infinity', '{}', false, '[]', NULL)"#)];

const STREAMED_TABLES: &str = "
    CREATE TABLE item (id integer PRIMARY KEY, note text);
    CREATE TABLE ballast (weight text);
    CREATE PUBLICATION p FOR TABLE item";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "types_text", protocol: 1, binary: false, setup: SAMPLES, steps: SAMPLE_ROWS },
    Scenario { name: "types_binary", protocol: 1, binary: true, setup: SAMPLES, steps: SAMPLE_ROWS },
    Scenario {
        name: "update",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE keyed (id integer PRIMARY KEY, note text);
            CREATE TABLE whole (id integer, note text);
            ALTER TABLE whole REPLICA IDENTITY FULL;
            CREATE TABLE indexed (id integer PRIMARY KEY, code text NOT NULL UNIQUE);
            ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key;
            INSERT INTO keyed VALUES (1, 'a');
            INSERT INTO whole VALUES (1, NULL);
            INSERT INTO indexed VALUES (1, 'x');
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[Sql("
            UPDATE keyed SET note = 'b';
            UPDATE keyed SET id = 2;
            UPDATE whole SET note = 'b';
            UPDATE indexed SET id = 2;
            UPDATE indexed SET code = 'y'")],
    },
    Scenario {
        name: "unchanged_toast",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE keyed (id integer PRIMARY KEY, n integer, long text);
            ALTER TABLE keyed ALTER long SET STORAGE EXTERNAL;
            CREATE TABLE whole (LIKE keyed INCLUDING STORAGE);
            ALTER TABLE whole REPLICA IDENTITY FULL;
            INSERT INTO keyed VALUES (1, 1, repeat('0123456789', 210));
            INSERT INTO whole SELECT * FROM keyed;
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[Sql("
            UPDATE keyed SET n = 2;
            UPDATE keyed SET id = 2;
            UPDATE whole SET n = 2;
            UPDATE keyed SET long = 'short'")],
    },
    Scenario {
        name: "delete",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE keyed (id integer, part text, note text, PRIMARY KEY (part, id));
            CREATE TABLE whole (id integer, note text);
            ALTER TABLE whole REPLICA IDENTITY FULL;
            CREATE TABLE indexed (id integer PRIMARY KEY, code text NOT NULL UNIQUE);
            ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key;
            INSERT INTO keyed VALUES (1, 'a', 'gone');
            INSERT INTO whole VALUES (1, NULL), (1, NULL);
            INSERT INTO indexed VALUES (1, 'x');
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[Sql("DELETE FROM keyed"), Sql("DELETE FROM whole; DELETE FROM indexed")],
    },
    Scenario {
        name: "truncate",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE parent (id serial PRIMARY KEY);
            CREATE TABLE child (parent integer REFERENCES parent);
            CREATE TABLE alone (id serial PRIMARY KEY);
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[
            Sql("TRUNCATE alone"),
            Sql("TRUNCATE parent CASCADE"),
            Sql("TRUNCATE alone, child RESTART IDENTITY"),
            Sql("TRUNCATE parent RESTART IDENTITY CASCADE"),
        ],
    },
    Scenario {
        name: "logical_message",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE item (id integer PRIMARY KEY);
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[
            Sql(r"BEGIN;
                INSERT INTO item VALUES (1);
                SELECT pg_logical_emit_message(true, 'inside', 'kept');
                SELECT pg_logical_emit_message(false, 'ahead', '\x00ff'::bytea);
                INSERT INTO item VALUES (2);
                COMMIT"),
            Sql("BEGIN;
                INSERT INTO item VALUES (3);
                SELECT pg_logical_emit_message(true, 'inside', 'lost');
                SELECT pg_logical_emit_message(false, 'ahead', '');
                ROLLBACK"),
            Sql("SELECT pg_logical_emit_message(true, '', 'a transaction of nothing else')"),
        ],
    },
    Scenario {
        name: "origin",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE item (id integer PRIMARY KEY);
            CREATE PUBLICATION p FOR ALL TABLES;
            SELECT pg_replication_origin_create('paris')
                WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'paris')",
        steps: &[
            Sql("SELECT pg_replication_origin_session_setup('paris')"),
            Sql("BEGIN;
                SELECT pg_replication_origin_xact_setup('A/BC', '2026-01-02 03:04:05+00');
                INSERT INTO item VALUES (1);
                COMMIT"),
            Sql("SELECT pg_replication_origin_session_reset()"),
            Sql("INSERT INTO item VALUES (2)"),
        ],
    },
    Scenario {
        name: "schema_change",
        protocol: 1,
        binary: false,
        setup: "
            CREATE TABLE item (id integer PRIMARY KEY, note text);
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[
            Sql("INSERT INTO item VALUES (1, 'a')"),
            Sql("INSERT INTO item VALUES (2, 'b')"),
            Sql("ALTER TABLE item ADD price numeric(10,2) DEFAULT 1"),
            Sql("INSERT INTO item VALUES (3, 'c', 2)"),
            Sql("BEGIN;
                ALTER TABLE item DROP note;
                ALTER TABLE item RENAME price TO cost;
                ALTER TABLE item ALTER cost TYPE text;
                ALTER TABLE item RENAME TO thing;
                ALTER TABLE thing REPLICA IDENTITY FULL;
                INSERT INTO thing VALUES (4, 'x');
                COMMIT"),
            Sql("ALTER TABLE thing REPLICA IDENTITY NOTHING"),
            Sql("INSERT INTO thing VALUES (5, 'y')"),
        ],
    },
    Scenario {
        name: "stream_commit",
        protocol: 2,
        binary: false,
        setup: "
            CREATE TYPE mood AS ENUM ('calm');
            CREATE TABLE item (id integer PRIMARY KEY, note text);
            CREATE TABLE other (mood mood);
            CREATE TABLE ballast (weight text);
            CREATE PUBLICATION p FOR TABLE item, other",
        steps: &[
            Sql("BEGIN;
                INSERT INTO item VALUES (1, 'a'), (2, 'b');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("UPDATE item SET note = 'c' WHERE id = 1;
                UPDATE item SET id = 3 WHERE id = 2;
                DELETE FROM item WHERE id = 1;
                SELECT pg_logical_emit_message(true, 'inside', 'streamed');
                TRUNCATE other RESTART IDENTITY;
                INSERT INTO other VALUES ('calm');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("INSERT INTO item VALUES (4, 'd'); COMMIT"),
            Sql("INSERT INTO item VALUES (5, 'not streamed')"),
        ],
    },
    Scenario {
        name: "stream_subtransaction_abort",
        protocol: 2,
        binary: false,
        setup: STREAMED_TABLES,
        steps: &[
            Sql("BEGIN;
                INSERT INTO item VALUES (1, 'kept');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("SAVEPOINT s;
                INSERT INTO item VALUES (2, 'undone');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("ROLLBACK TO s;
                INSERT INTO item VALUES (3, 'kept');
                COMMIT"),
        ],
    },
    Scenario {
        name: "stream_abort",
        protocol: 2,
        binary: false,
        setup: STREAMED_TABLES,
        steps: &[
            Sql("BEGIN;
                INSERT INTO item VALUES (1, 'undone');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("ROLLBACK"),
            Sql("INSERT INTO item VALUES (2, 'kept')"),
        ],
    },
    Scenario {
        name: "stream_origin",
        protocol: 2,
        binary: false,
        setup: "
            CREATE TABLE item (id integer PRIMARY KEY, note text);
            CREATE TABLE ballast (weight text);
            CREATE PUBLICATION p FOR TABLE item;
            SELECT pg_replication_origin_create('paris')
                WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'paris')",
        steps: &[
            Sql("SELECT pg_replication_origin_session_setup('paris')"),
            Sql("BEGIN;
                SELECT pg_replication_origin_xact_setup('A/BC', '2026-01-02 03:04:05+00');
                INSERT INTO item VALUES (1, 'from afar');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("COMMIT"),
            Sql("SELECT pg_replication_origin_session_reset()"),
        ],
    },
    Scenario {
        name: "prepare",
        protocol: 3,
        binary: false,
        setup: "
            CREATE TABLE item (id integer PRIMARY KEY);
            CREATE PUBLICATION p FOR ALL TABLES",
        steps: &[
            Sql("BEGIN; INSERT INTO item VALUES (1); PREPARE TRANSACTION 'order 1'"),
            Await(PREPARE),
            Sql("INSERT INTO item VALUES (2)"),
            Sql("COMMIT PREPARED 'order 1'"),
            Sql("BEGIN; INSERT INTO item VALUES (3); PREPARE TRANSACTION 'order 2'"),
            Await(PREPARE),
            Sql("ROLLBACK PREPARED 'order 2'"),
        ],
    },
    Scenario {
        name: "stream_prepare",
        protocol: 3,
        binary: false,
        setup: STREAMED_TABLES,
        steps: &[
            Sql("BEGIN;
                INSERT INTO item VALUES (1, 'a');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("INSERT INTO item VALUES (2, 'b'); PREPARE TRANSACTION 'big 1'"),
            Await(STREAM_PREPARE),
            Sql("COMMIT PREPARED 'big 1'"),
            Sql("BEGIN;
                INSERT INTO item VALUES (3, 'c');
                INSERT INTO ballast SELECT repeat('x', 1900) FROM generate_series(1, 40)"),
            Await(STREAM_STOP),
            Sql("PREPARE TRANSACTION 'big 2'"),
            Await(STREAM_PREPARE),
            Sql("ROLLBACK PREPARED 'big 2'"),
        ],
    },
];
