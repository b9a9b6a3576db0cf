//! Tables that change at the source: by attribute number, in order, once.

use crate::feed::{Feed, SAME, stream, version};
use crate::{VERSIONS, config, count, lane, prepared, send, server, sink_at, try_send};
use replicator_config::{PostgresSinkConfig, TypeChanges};
use replicator_harness::{PgVersion, Postgres};
use replicator_sink::{ErrorKind, Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_sink_postgres::open;
use replicator_types::{ColumnKind, Lsn, Relation, ReplicaIdentity};
use slog::{Discard, Logger, o};
use std::sync::Arc;

const COLUMNS: &str = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) \
     || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY attnum) FROM pg_attribute \
     WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";

const INDEXES: &str =
    "SELECT string_agg(indexdef, '; ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 't'";

fn t(since: u64, columns: &[(i16, &str, &str)]) -> Arc<Relation> {
    Arc::new(version(77, since, "t", columns))
}

async fn become_version(
    lane: &mut Box<dyn Lane>,
    feed: &mut Feed,
    relation: &Arc<Relation>,
) -> Result<(), SinkError> {
    // Every schema change is prepared and sent twice: the second time changes nothing.
    for _ in 0..2 {
        let batch = feed.schema_batch(relation);
        let mut write = lane.prepare(Arc::new(batch)).await?;
        write.send().await?;
        write.send().await?;
    }
    Ok(())
}

async fn lane_with(server: &Postgres, type_changes: TypeChanges) -> Box<dyn Lane> {
    let config = PostgresSinkConfig { type_changes, ..config(&server.url("target")) };
    let sink = open("copy".into(), config, 1, Logger::root(Discard, o!())).unwrap();
    prepared(&sink).await.unwrap();
    sink.open_lane(0, &stream()).await.unwrap()
}

#[tokio::test]
async fn columns_whose_names_are_exchanged_keep_their_values() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let old = t(900, &[(1, "*id", "bigint"), (2, "a", "text"), (3, "b", "text"), (4, "c", "text")]);
        become_version(&mut lane, &mut feed, &old).await.unwrap();
        feed.insert(&old, &[Some("1"), Some("A"), Some("B"), Some("C")]);
        send(&mut lane, &mut feed).await;
        // A swap, and a chain behind it.
        let new = t(1_100, &[(1, "*key", "bigint"), (2, "b", "text"), (3, "c", "text"), (4, "a", "text")]);
        become_version(&mut lane, &mut feed, &new).await.unwrap();
        assert_eq!(server.sql("target", COLUMNS), "key bigint NOT NULL, b text, c text, a text");
        feed.update(&new, &[Some("1"), SAME, Some("B2"), SAME]);
        feed.insert(&new, &[Some("2"), Some("A"), Some("B"), Some("C")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE t ORDER BY key"), "1|A|B2|C\n2|A|B|C");
        assert_eq!(
            server.sql("target", "SELECT count(*) FROM replicator.checkpoint WHERE commit_lsn > '0/0'"),
            "1"
        );
    }
}

#[tokio::test]
async fn a_column_dropped_and_added_anew_under_its_name_is_another_one() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let old = t(900, &[(1, "*id", "bigint"), (2, "v", "text"), (3, "gone", "integer")]);
        become_version(&mut lane, &mut feed, &old).await.unwrap();
        feed.insert(&old, &[Some("1"), Some("old"), Some("1")]);
        send(&mut lane, &mut feed).await;
        let mut new = version_with_default(1_100);
        new.columns[2].default_sql = Some("'later'::text".into());
        let new = Arc::new(new);
        become_version(&mut lane, &mut feed, &new).await.unwrap();
        feed.insert(&new, &[Some("2"), Some("new"), Some("x")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE t ORDER BY id"), "1||it's\n2|new|x");
        server.sql("target", "INSERT INTO t (id) VALUES (3)");
        assert_eq!(server.sql("target", "SELECT added FROM t WHERE id = 3"), "later");
        // The default goes at the source.
        let new = Arc::new(version_with_default(1_200));
        become_version(&mut lane, &mut feed, &new).await.unwrap();
        server.sql("target", "INSERT INTO t (id) VALUES (4)");
        assert_eq!(server.sql("target", "SELECT added IS NULL FROM t WHERE id = 4"), "t");
    }
}

/// `v` is another column than before; older rows have `it's` in `added`.
fn version_with_default(since: u64) -> Relation {
    let mut new = version(77, since, "t", &[(1, "*id", "bigint"), (4, "v", "text"), (5, "added", "text")]);
    new.columns[2].missing_text = Some("it's".into());
    new.columns[2].has_default = true;
    new
}

#[tokio::test]
async fn changes_of_older_versions_that_come_again_go_into_todays_columns_and_change_no_table() {
    for version in VERSIONS {
        let server = server(version);
        let old = t(900, &[(1, "*id", "bigint"), (2, "a", "text"), (3, "b", "text"), (4, "d", "text")]);
        let new = t(1_100, &[(1, "*id", "bigint"), (2, "b", "text"), (3, "a", "text"), (5, "d", "text")]);
        let mut first = lane(&server).await;
        let mut feed = Feed::new();
        become_version(&mut first, &mut feed, &old).await.unwrap();
        feed.insert(&old, &[Some("1"), Some("A"), Some("B"), Some("D")]);
        let again = feed.changes.clone();
        send(&mut first, &mut feed).await;
        become_version(&mut first, &mut feed, &new).await.unwrap();
        let before = server.sql("target", COLUMNS);
        // After a crash the stream begins again before all that; a later shape of the table is known early.
        let sink = sink_at(&server.url("target"), 1);
        let latest = t(9_000, &[(1, "*id", "bigint"), (7, "z", "text")]);
        sink.prepare(&StreamInfo { tables: vec![latest], ..stream() }).await.unwrap();
        let mut second = sink.open_lane(0, &stream()).await.unwrap();
        let mut feed = Feed::new();
        become_version(&mut second, &mut feed, &old).await.unwrap();
        feed.changes = again;
        feed.insert(&old, &[Some("9"), None, None, None]);
        try_send(&mut second, feed.batch()).await.unwrap();
        // Changes of the old version that are not in yet.
        feed.commit();
        feed.commit();
        feed.insert(&old, &[Some("2"), Some("A2"), Some("B2"), Some("D2")]);
        feed.update(&old, &[Some("1"), Some("A1"), SAME, Some("D1")]);
        send(&mut second, &mut feed).await;
        become_version(&mut second, &mut feed, &new).await.unwrap();
        assert_eq!(server.sql("target", COLUMNS), before);
        let rows = server.sql("target", "SELECT id, b, a, d FROM t WHERE id < 9 ORDER BY id");
        assert_eq!(rows, "1|A1|B|\n2|A2|B2|");
    }
}

#[tokio::test]
async fn types_are_changed_through_the_cast_or_through_text_or_by_the_policy() {
    for pg in VERSIONS {
        for policy in [TypeChanges::Error, TypeChanges::Keep, TypeChanges::String] {
            let server = server(pg);
            let mut lane = lane_with(&server, policy).await;
            let mut feed = Feed::new();
            let mut old = version(
                77,
                900,
                "t",
                &[
                    (1, "*id", "integer"),
                    (2, "n", "numeric(6,2)"),
                    (3, "s", "text"),
                    (4, "c", "character(3)"),
                ],
            );
            old.columns[1].default_sql = Some("5".into());
            let old = Arc::new(old);
            become_version(&mut lane, &mut feed, &old).await.unwrap();
            feed.insert(&old, &[Some("1"), Some("7.50"), Some("42"), Some("x  ")]);
            feed.insert(&old, &[Some("2"), None, None, None]);
            send(&mut lane, &mut feed).await;
            // Wider; through text; wider.
            let wide = t(
                1_100,
                &[
                    (1, "*id", "bigint"),
                    (2, "n", "numeric(12,4)"),
                    (3, "s", "integer"),
                    (4, "c", "character(3)"),
                ],
            );
            become_version(&mut lane, &mut feed, &wide).await.unwrap();
            feed.insert(&wide, &[Some("3000000000"), Some("1.2345"), Some("-1"), None]);
            send(&mut lane, &mut feed).await;
            let rows = server.sql("target", "SELECT id, n, s + 1 FROM t ORDER BY id");
            assert_eq!(rows, "1|7.5000|43\n2||\n3000000000|1.2345|0");
            // No cast at all, and no number.
            let narrow = t(
                1_200,
                &[(1, "*id", "bigint"), (2, "n", "numeric(12,4)"), (3, "s", "integer"), (4, "c", "inet")],
            );
            let changed = become_version(&mut lane, &mut feed, &narrow).await;
            match policy {
                TypeChanges::Error => {
                    let error = changed.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Halt);
                    let text = error.to_string();
                    assert!(text.contains("column c of table public.t became inet"), "{text}");
                    assert!(text.contains("type_changes"), "{text}");
                    // Done by hand, it goes on.
                    server.sql("target", "ALTER TABLE t ALTER c TYPE inet USING '10.0.0.1'::inet");
                    become_version(&mut lane, &mut feed, &narrow).await.unwrap();
                }
                TypeChanges::Keep | TypeChanges::String => changed.unwrap(),
            }
            feed.changes.clear();
            feed.insert(&narrow, &[Some("4"), None, None, Some("10.0.0.2/24")]);
            let sent = try_send(&mut lane, feed.batch()).await;
            let c = server
                .sql("target", "SELECT pg_typeof(c)::text || ' ' || format('%s', c) FROM t WHERE id = 1");
            match policy {
                TypeChanges::Error => assert_eq!((sent, c.as_str()), (Ok(()), "inet 10.0.0.1")),
                TypeChanges::Keep => {
                    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Reject);
                    assert_eq!(c, "character x  ");
                }
                TypeChanges::String => assert_eq!((sent, c.as_str()), (Ok(()), "text x  ")),
            }
        }
    }
}

#[tokio::test]
async fn a_new_key_gets_its_index_and_the_one_made_for_the_old_key_goes() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let columns = |key: &str, by_index: bool| {
            let plain = [(1, "id", "bigint"), (2, "code", "bigint"), (3, "v", "text")];
            let starred = plain.map(|(attnum, name, of)| {
                (attnum, if name == key { format!("*{name}") } else { name.to_owned() }, of)
            });
            let starred: Vec<(i16, &str, &str)> =
                starred.iter().map(|(attnum, name, of)| (*attnum, name.as_str(), *of)).collect();
            let since = match (key, by_index) {
                ("id", _) => 900,
                ("code", false) => 1_100,
                ("code", true) => 1_200,
                _ => 1_300,
            };
            let mut relation = crate::feed::version(77, since, "t", &starred);
            if by_index {
                relation.replica_identity = ReplicaIdentity::Index;
            }
            Arc::new(relation)
        };
        let by_id = columns("id", false);
        become_version(&mut lane, &mut feed, &by_id).await.unwrap();
        feed.insert(&by_id, &[Some("1"), Some("10"), Some("a")]);
        send(&mut lane, &mut feed).await;
        for by_index in [false, true] {
            let by_code = columns("code", by_index);
            become_version(&mut lane, &mut feed, &by_code).await.unwrap();
            let indexes = server.sql("target", INDEXES);
            assert!(indexes.contains("btree (code)") && !indexes.contains("(id)"), "{indexes}");
        }
        let by_code = columns("code", true);
        // The id is no key any more: NULL, and twice the same.
        feed.insert(&by_code, &[None, Some("11"), Some("b")]);
        feed.update(&by_code, &[None, Some("10"), Some("c")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT code, v, id FROM t ORDER BY code"), "10|c|\n11|b|");
        // A version from before it is not applied by a key that is no more.
        feed.changes.clear();
        feed.insert(&by_id, &[Some("5"), Some("12"), Some("x")]);
        let error = try_send(&mut lane, feed.batch()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("copy the table again"), "{error}");
        let keyless = columns("", false);
        become_version(&mut lane, &mut feed, &keyless).await.unwrap();
        assert_eq!(server.sql("target", INDEXES), "");
        feed.insert(&keyless, &[None, Some("10"), None]);
        feed.delete_full(&keyless, &[None, Some("10"), Some("c")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(count(&server, "t"), 2);
    }
}

#[tokio::test]
async fn not_null_comes_and_goes_with_the_source() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let shape = |since, a: bool, b: bool| {
            let mut relation = crate::feed::version(
                77,
                since,
                "t",
                &[(1, "*id", "bigint"), (2, "a", "text"), (3, "b", "text")],
            );
            (relation.columns[1].not_null, relation.columns[2].not_null) = (a, b);
            Arc::new(relation)
        };
        become_version(&mut lane, &mut feed, &shape(900, false, false)).await.unwrap();
        feed.insert(&shape(900, false, false), &[Some("1"), Some("x"), None]);
        send(&mut lane, &mut feed).await;
        // One that holds here and one that does not.
        become_version(&mut lane, &mut feed, &shape(1_100, true, true)).await.unwrap();
        assert_eq!(server.sql("target", COLUMNS), "id bigint NOT NULL, a text NOT NULL, b text");
        become_version(&mut lane, &mut feed, &shape(1_200, false, true)).await.unwrap();
        assert_eq!(server.sql("target", COLUMNS), "id bigint NOT NULL, a text, b text");
        server.sql("target", "UPDATE t SET b = 'y'");
        become_version(&mut lane, &mut feed, &shape(1_300, false, true)).await.unwrap();
        assert_eq!(server.sql("target", COLUMNS), "id bigint NOT NULL, a text, b text NOT NULL");
    }
}

#[tokio::test]
async fn a_table_is_renamed_and_moved_and_two_that_exchange_names_end_right() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let named = |oid, since, schema: &str, name: &str| {
            let relation = crate::feed::version(oid, since, name, &[(1, "*id", "bigint")]);
            Arc::new(Relation { schema: schema.into(), ..relation })
        };
        let (a, b) = (named(1, 900, "public", "a"), named(2, 900, "public", "b"));
        become_version(&mut lane, &mut feed, &a).await.unwrap();
        become_version(&mut lane, &mut feed, &b).await.unwrap();
        feed.insert(&a, &[Some("1")]);
        feed.insert(&b, &[Some("2")]);
        send(&mut lane, &mut feed).await;
        let moved = named(1, 1_100, "Other \"Schema\"", "a2");
        become_version(&mut lane, &mut feed, &moved).await.unwrap();
        feed.insert(&moved, &[Some("3")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT * FROM \"Other \"\"Schema\"\"\".a2 ORDER BY 1"), "1\n3");
        let (a, b) = (named(1, 1_200, "public", "b"), named(2, 1_200, "public", "a"));
        become_version(&mut lane, &mut feed, &a).await.unwrap();
        feed.insert(&a, &[Some("4")]);
        send(&mut lane, &mut feed).await;
        become_version(&mut lane, &mut feed, &b).await.unwrap();
        feed.insert(&b, &[Some("5")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT id FROM b ORDER BY 1"), "1\n3\n4");
        assert_eq!(server.sql("target", "SELECT id FROM a ORDER BY 1"), "2\n5");
        // A table that is not ours has the name.
        server.sql("target", "CREATE TABLE taken ()");
        let error =
            become_version(&mut lane, &mut feed, &named(2, 1_300, "public", "taken")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("public.taken"), "{error}");
    }
}

#[tokio::test]
async fn a_table_made_anew_at_the_source_is_made_anew_here_and_the_old_one_is_set_aside() {
    let server = server(PgVersion::V18);
    let mut lane = lane(&server).await;
    let mut feed = Feed::new();
    let first = Arc::new(version(5, 900, "t", &[(1, "*id", "bigint"), (2, "v", "text")]));
    become_version(&mut lane, &mut feed, &first).await.unwrap();
    feed.insert(&first, &[Some("1"), Some("old")]);
    send(&mut lane, &mut feed).await;
    let second = Arc::new(version(6, 1_100, "t", &[(1, "*id", "bigint"), (2, "w", "integer")]));
    become_version(&mut lane, &mut feed, &second).await.unwrap();
    feed.insert(&second, &[Some("1"), Some("2")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "TABLE t"), "1|2");
    assert_eq!(server.sql("target", "TABLE replicator_5_renamed"), "1|old");
}

#[tokio::test]
async fn what_is_not_the_sources_is_left_alone_and_what_depends_on_a_column_stops_with_the_remedy() {
    for version in VERSIONS {
        let server = server(version);
        server.sql("target", "CREATE TABLE t (id bigint PRIMARY KEY, a text, extra text DEFAULT 'mine')");
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let old = t(900, &[(1, "*id", "bigint"), (2, "a", "text")]);
        become_version(&mut lane, &mut feed, &old).await.unwrap();
        feed.insert(&old, &[Some("1"), Some("A")]);
        send(&mut lane, &mut feed).await;
        server.sql("target", "CREATE VIEW v AS SELECT a FROM t");
        let new = t(1_100, &[(1, "*id", "bigint")]);
        let error = become_version(&mut lane, &mut feed, &new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("depends on it"), "{error}");
        assert_eq!(server.sql("target", COLUMNS), "id bigint NOT NULL, a text, extra text");
        server.sql("target", "DROP VIEW v");
        feed.changes.clear();
        become_version(&mut lane, &mut feed, &new).await.unwrap();
        assert_eq!(server.sql("target", "TABLE t"), "1|mine");
        // Renamed to what the target has already.
        let taken = t(1_200, &[(1, "*extra", "bigint")]);
        let error = become_version(&mut lane, &mut feed, &taken).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Halt && error.to_string().contains("extra"), "{error}");
    }
}

#[tokio::test]
async fn a_label_that_an_enum_gained_is_added_when_it_comes() {
    for version in VERSIONS {
        let server = server(version);
        server.sql("target", "CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN feeling AS mood");
        let mut lane = lane(&server).await;
        let mut relation = crate::feed::version(
            77,
            900,
            "t",
            &[
                (1, "*id", "bigint"),
                (2, "m", "public.mood"),
                (3, "l", "public.mood[]"),
                (4, "f", "public.feeling"),
            ],
        );
        for (index, kind) in [
            (1, ColumnKind::Enum),
            (2, ColumnKind::Array { element_oid: 99_999, element_modifier: -1, element_is_enum: true }),
            (3, ColumnKind::Enum),
        ] {
            relation.columns[index].kind = kind;
        }
        let moody = Arc::new(relation);
        let mut feed = Feed::new();
        feed.insert(&moody, &[Some("1"), Some("sad"), Some("{sad}"), None]);
        send(&mut lane, &mut feed).await;
        feed.insert(&moody, &[Some("2"), Some("it's \\ok"), Some("{\"a, b\",NULL}"), Some("fine")]);
        feed.update(&moody, &[Some("1"), Some("sad"), None, Some("it's \\ok")]);
        send(&mut lane, &mut feed).await;
        let rows = "1|sad||it's \\ok\n2|it's \\ok|{\"a, b\",NULL}|fine";
        assert_eq!(server.sql("target", "TABLE t ORDER BY id"), rows);
        assert_eq!(server.sql("target", "SELECT count(*) FROM pg_enum"), "4");
    }
}

#[tokio::test]
async fn a_copy_brings_the_table_to_its_snapshots_version_and_lanes_of_the_stream_notice() {
    for version in VERSIONS {
        let server = server(version);
        let sink = sink_at(&server.url("target"), 1);
        prepared(&sink).await.unwrap();
        let mut lane = sink.open_lane(0, &stream()).await.unwrap();
        let mut feed = Feed::new();
        let old = t(900, &[(1, "*id", "bigint"), (2, "a", "text")]);
        become_version(&mut lane, &mut feed, &old).await.unwrap();
        feed.insert(&old, &[Some("1"), Some("x")]);
        send(&mut lane, &mut feed).await;
        let new = t(5_000, &[(1, "*id", "bigint"), (2, "b", "text")]);
        let copy = TableCopy { relation: new, snapshot: Lsn(5_000), empty_first: false, is_resumed: true };
        sink.begin_copy(&copy).await.unwrap();
        // Held changes of the version before it.
        feed.update(&old, &[Some("1"), Some("y")]);
        let batch = feed.batch_of(replicator_types::Phase::CatchUp);
        try_send(&mut lane, batch).await.unwrap();
        assert_eq!(server.sql("target", "SELECT b FROM t"), "y");
    }
}

#[tokio::test]
async fn a_schema_change_whose_answer_is_lost_is_made_once() {
    let server = server(PgVersion::V18);
    let proxy = replicator_harness::Proxy::start(server.address());
    let sink = sink_at(&proxy.rewrite(&server.url("target")), 1);
    prepared(&sink).await.unwrap();
    let mut lane = sink.open_lane(0, &stream()).await.unwrap();
    let mut feed = Feed::new();
    let shape = |version: u64| {
        // The two names change places each time.
        let (a, b) = if version.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        t(900 + version, &[(1, "*id", "bigint"), (2, a, "text"), (3, b, "text")])
    };
    become_version(&mut lane, &mut feed, &shape(0)).await.unwrap();
    feed.insert(&shape(0), &[Some("1"), Some("A"), Some("B")]);
    send(&mut lane, &mut feed).await;
    let way = replicator_harness::Direction::ToClient;
    let before = proxy.forwarded_bytes(way);
    become_version(&mut lane, &mut feed, &shape(1)).await.unwrap();
    let bytes = (proxy.forwarded_bytes(way) - before) as u32;
    let (mut failures, mut version) = (0, 1);
    for cut in (0..bytes).step_by(61) {
        version += 1;
        let batch = Arc::new(feed.schema_batch(&shape(version)));
        proxy.cut_after(cut, way);
        while let Err(error) = lane.prepare(Arc::clone(&batch)).await.map(drop) {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            failures += 1;
        }
        let columns = if version.is_multiple_of(2) { "a, b" } else { "b, a" };
        assert_eq!(server.sql("target", &format!("SELECT {columns} FROM t")), "A|B", "cut {cut}");
    }
    assert!(failures > 10, "{failures} of {bytes} bytes");
}
