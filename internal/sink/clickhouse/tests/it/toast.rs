use crate::support::Cell::{N, T, U};
use crate::support::*;
use replicator_sink::Lane;
use replicator_types::{Column, ColumnKind, Relation, oid};
use serde_json::{Value, json};
use std::sync::Arc;

/// `docs (id bigint, lang text, title text, body text, raw bytea, tags text[] not null, price numeric)`, key (id, lang).
fn docs() -> Arc<Relation> {
    let array = ColumnKind::Array { element_oid: oid::TEXT, element_modifier: -1, element_is_enum: false };
    let tags = Column { kind: array, not_null: true, ..column("tags", 1009) };
    Arc::new(table(
        "docs",
        vec![
            key("id", oid::INT8),
            key("lang", oid::TEXT),
            column("title", oid::TEXT),
            column("body", oid::TEXT),
            column("raw", oid::BYTEA),
            tags,
            column("price", oid::NUMERIC),
        ],
    ))
}

const BODY: &str = "it's \"big\" \\ with\nodd ' bytes \u{1F418}";
const RAW: &str = "\\x00ff5c";
const TAGS: &str = r#"{a,NULL,"b,\"c\\d"}"#;
const ROWS: &str = "SELECT id, lang, title, body, hex(raw), tags, price FROM {db}.docs FINAL ORDER BY id, lang FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0";

fn row<'a>(id: &'a str, title: &'a str) -> [Cell<'a>; 7] {
    [T(id), T("en"), T(title), T(BODY), T(RAW), T(TAGS), T("1.50")]
}

fn touched<'a>(id: &'a str, title: &'a str) -> [Cell<'a>; 7] {
    [T(id), T("en"), T(title), U, U, U, U]
}

fn expected(id: u64, title: &str) -> Value {
    json!([id, "en", title, BODY, "00FF5C", ["a", null, "b,\"c\\d"], "1.50"])
}

fn same(found: &str, expected: &[Value]) {
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_values_are_read_back_from_the_table() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    write(
        &mut lane,
        batch(&[insert(&docs, (10, 0), &row("1", "a")), insert(&docs, (10, 1), &row("2", "a"))]),
    )
    .await;
    let touch = batch(&[update(&docs, (11, 0), &touched("1", "b"))]);
    assert!(lane.needs_drain(&touch), "the row's version may still be in flight");
    write(&mut lane, touch).await;
    same(&fixture.query(ROWS), &[expected(1, "b"), expected(2, "a")]);
    // A value that is NULL stays NULL.
    write(&mut lane, batch(&[update(&docs, (12, 0), &[T("2"), T("en"), N, N, N, T("{}"), N])])).await;
    write(&mut lane, batch(&[update(&docs, (13, 0), &touched("2", "c"))])).await;
    assert_eq!(
        fixture.query("SELECT title, body, raw, tags, price FROM {db}.docs FINAL WHERE id = 2"),
        "c\t\\N\t\\N\t[]\t\\N"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_values_come_from_the_rows_version_in_the_same_batch() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    let events = [
        insert(&docs, (10, 0), &row("1", "a")),
        update(&docs, (10, 1), &touched("1", "b")),
        update(&docs, (10, 2), &touched("1", "c")),
    ];
    write(&mut lane, batch(&events)).await;
    same(&fixture.query(ROWS), &[expected(1, "c")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_update_does_not_bring_old_values_back() {
    let fixture = Fixture::new();
    let docs = docs();
    let events = [
        vec![insert(&docs, (10, 0), &row("1", "a"))],
        vec![update(&docs, (11, 0), &touched("1", "b"))],
        vec![update(&docs, (12, 0), &[T("1"), T("en"), T("c"), T("short"), N, T("{}"), T("2")])],
        vec![update(&docs, (13, 0), &touched("1", "d"))],
        vec![delete(&docs, (14, 0), &[T("1"), T("en"), N, N, N, N, N])],
    ];
    for written in 1..=events.len() {
        fixture.query("TRUNCATE TABLE IF EXISTS {db}.docs");
        let mut lane = fixture.lane(&[&docs]).await;
        for part in &events[..written] {
            write(&mut lane, batch(part)).await;
        }
        let before = fixture.query(ROWS);
        fixture.query("OPTIMIZE TABLE {db}.docs FINAL");
        for from in 0..written {
            let mut lane = fixture.lane(&[&docs]).await;
            for part in &events[from..written] {
                write(&mut lane, batch(part)).await;
            }
            assert_eq!(fixture.query(ROWS), before, "replayed from {from} of {written}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_takes_the_unchanged_values_along_also_when_replayed() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    write(&mut lane, batch(&[insert(&docs, (10, 0), &row("1", "a"))])).await;
    // The new key had another row once.
    write(&mut lane, batch(&[insert(&docs, (10, 1), &[T("2"), T("en"), N, T("other"), N, T("{}"), N])]))
        .await;
    write(&mut lane, batch(&[delete(&docs, (10, 2), &[T("2"), T("en"), N, N, N, N, N])])).await;
    let old = [T("1"), T("en"), N, N, N, N, N];
    let moved = [update(&docs, (11, 0), &touched("2", "b")).moved_from(&old)];
    let later = [insert(&docs, (12, 0), &row("1", "again"))];
    write(&mut lane, fenced(&moved)).await;
    same(&fixture.query(ROWS), &[expected(2, "b")]);
    assert_eq!(
        fixture.query("SELECT id, _version, _deleted FROM {db}.docs WHERE _version NOT IN (toUInt128('184467440737095516161'), toUInt128('184467440737095516162')) ORDER BY _version"),
        format!("1\t{}\t0\n1\t{}\t1\n2\t{}\t0", 10_u128 << 64, 11_u128 << 64, (11_u128 << 64) + 1)
    );
    // After a crash: the old key's newest row is a tombstone, later one of another row.
    for replayed in [vec![&moved[..]], vec![&later[..]], vec![&moved[..], &later[..]]] {
        let mut lane = fixture.lane(&[&docs]).await;
        for part in replayed {
            write(&mut lane, fenced(part)).await;
        }
        fixture.query("OPTIMIZE TABLE {db}.docs FINAL");
    }
    same(&fixture.query(ROWS), &[expected(1, "again"), expected(2, "b")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_key_changes_in_one_batch_keeps_the_values() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    let old = |id| [T(id), T("en"), N, N, N, N, N];
    let events = [
        insert(&docs, (10, 0), &row("1", "a")),
        update(&docs, (10, 1), &touched("2", "b")).moved_from(&old("1")),
        update(&docs, (10, 3), &touched("3", "c")).moved_from(&old("2")),
        update(&docs, (10, 5), &touched("3", "d")),
    ];
    write(&mut lane, fenced(&events)).await;
    same(&fixture.query(ROWS), &[expected(3, "d")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_query_takes_are_all_found() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    let ids: Vec<String> = (0..1300).map(|n| n.to_string()).collect();
    let inserts: Vec<_> = (0..).zip(&ids).map(|(n, id)| insert(&docs, (10, n), &row(id, "a"))).collect();
    write(&mut lane, batch(&inserts)).await;
    let updates: Vec<_> = (0..).zip(&ids).map(|(n, id)| update(&docs, (11, n), &touched(id, "b"))).collect();
    write(&mut lane, batch(&updates)).await;
    assert_eq!(
        fixture.query("SELECT count(), countIf(title = 'b'), uniqExact(body), countIf(length(tags) = 3) FROM {db}.docs FINAL"),
        "1300\t1300\t1\t1300"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_has_the_unchanged_value_in_every_row() {
    let fixture = Fixture::history();
    let docs = docs();
    let events = [
        insert(&docs, (10, 0), &row("1", "a")),
        update(&docs, (11, 0), &touched("1", "b")),
        update(&docs, (12, 0), &touched("2", "c")).moved_from(&[T("1"), T("en"), N, N, N, N, N]),
        update(&docs, (13, 0), &touched("2", "d")),
    ];
    async fn run(lane: &mut Box<dyn Lane>, events: &[Event], cut: usize) {
        for part in events.chunks(cut) {
            write(lane, fenced(part)).await;
        }
    }
    let query = "SELECT id, _op, title, ifNull(body, 'NULL') = 'NULL' FROM {db}.docs ORDER BY _version";
    let rows = "1\tinsert\ta\t0\n1\tupdate\tb\t0\n1\tdelete\t\\N\t1\n2\tupdate\tc\t0\n2\tupdate\td\t0";
    for cut in [1, 2, 4] {
        let mut lane = fixture.lane(&[&docs]).await;
        run(&mut lane, &events, cut).await;
        assert_eq!(fixture.query(query), rows, "cut into {cut}");
    }
    fixture.query("TRUNCATE TABLE {db}.docs");
    let mut lane = fixture.lane(&[&docs]).await;
    run(&mut lane, &events, 4).await;
    assert_eq!(fixture.query(query), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_row_that_was_never_copied_is_null_and_the_stream_goes_on() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    write(&mut lane, batch(&[update(&docs, (11, 0), &[T("1"), T("en"), T("b"), U, U, T("{}"), U])])).await;
    assert_eq!(fixture.query("SELECT title, body, price FROM {db}.docs FINAL"), "b\t\\N\t\\N");
}

/// A value of 1 MiB that does not compress.
fn large(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 75) as u8)
    };
    (0..1 << 20).map(|_| next()).collect()
}

/// Writes rows with large values, notes them in the table `before`, and gives updates that leave them alone.
async fn large_rows(
    fixture: &Fixture,
    lane: &mut Box<dyn Lane>,
    docs: &Arc<Relation>,
    ids: u64,
) -> Vec<Event> {
    for id in 0..ids {
        let (key, body) = (id.to_string(), large(id));
        let row = [T(&key), T("en"), T("a"), T(&body), T(RAW), T(TAGS), T("1.50")];
        write(lane, batch(&[insert(docs, (10, id), &row)])).await;
    }
    fixture
        .query("CREATE TABLE {db}.before ENGINE = MergeTree ORDER BY id AS SELECT id, body FROM {db}.docs");
    (0..ids).map(|id| update(docs, (11, id), &touched(&id.to_string(), "b"))).collect()
}

/// Updates that have arrived, and those of them with the value that the row had.
fn arrived(fixture: &Fixture, is_history: bool) -> String {
    let updates = if is_history { "docs WHERE _op = 'update'" } else { "docs FINAL WHERE title = 'b'" };
    fixture.query(&format!(
        "SELECT count(), countIf(d.body = b.body AND d.title = 'b') FROM (SELECT * FROM {{db}}.{updates}) AS d LEFT JOIN \
         {{db}}.before AS b ON b.id = d.id"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_that_were_not_sent_are_read_and_written_in_pieces() {
    for (is_history, dies) in [(false, false), (false, true), (true, false), (true, true)] {
        let fixture = if is_history { Fixture::history() } else { Fixture::new() };
        let docs = docs();
        let more = Arc::new(Relation { oid: docs.oid + 1, name: "more".into(), ..(*docs).clone() });
        let mut lane = fixture.lane(&[&docs, &more]).await;
        let mut updates = large_rows(&fixture, &mut lane, &docs, 40).await;
        write(&mut lane, batch(&[insert(&more, (10, 100), &row("1", "a"))])).await;
        // Of a row of the first piece, and of a table that nobody can read while the last piece is prepared.
        updates.push(update(&docs, (12, 0), &touched("1", "b")));
        updates.push(update(&more, (12, 1), &touched("1", "b")));
        let mut pieces = lane.prepare(Arc::new(batch(&updates))).await.unwrap();
        assert!((8 << 20..20 << 20).contains(&pieces.held_bytes()), "{}", pieces.held_bytes());
        fixture.query("RENAME TABLE {db}.more TO {db}.aside");
        pieces.send().await.unwrap();
        assert!(pieces.has_more());
        assert_eq!(arrived(&fixture, is_history), "16\t16");
        while pieces.send().await.is_ok() {
            assert!(pieces.has_more(), "nobody can read the table");
        }
        assert_eq!(arrived(&fixture, is_history).split('\t').next(), Some("32"), "its piece is not there");
        fixture.query("RENAME TABLE {db}.aside TO {db}.more");
        if dies {
            drop(pieces);
            lane = fixture.lane(&[&docs, &more]).await;
            write(&mut lane, batch(&updates)).await;
        } else {
            while pieces.has_more() {
                pieces.send().await.unwrap();
            }
        }
        assert_eq!(arrived(&fixture, is_history), if is_history { "41\t41" } else { "40\t40" });
        let more =
            "SELECT title, body, hex(raw), price FROM {db}.more WHERE title = 'b' FORMAT JSONCompactEachRow";
        same(&fixture.query(more), &[json!(["b", BODY, "00FF5C", "1.50"])]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_tables_with_large_values_each_piece_has_as_much_as_any() {
    let fixture = Fixture::new();
    let first = docs();
    let tables: Vec<Arc<Relation>> = (0..40)
        .map(|n| Arc::new(Relation { oid: first.oid + n, name: format!("docs{n}"), ..(*first).clone() }))
        .collect();
    let mut lane = fixture.lane(&tables.iter().collect::<Vec<_>>()).await;
    let mut updates = Vec::new();
    for (n, docs) in (0_u64..).zip(&tables) {
        let body = large(n);
        let row = [T("1"), T("en"), T("a"), T(&body), T(RAW), T(TAGS), T("1.50")];
        write(&mut lane, batch(&[insert(docs, (10, n), &row)])).await;
        updates.push(update(docs, (11, n), &touched("1", "b")));
    }
    let mut pieces = lane.prepare(Arc::new(batch(&updates))).await.unwrap();
    // Each is sent, and the next prepared.
    let mut calls = 0;
    while calls == 0 || pieces.has_more() {
        pieces.send().await.unwrap();
        calls += 1;
    }
    assert_eq!(calls, 5, "16 MiB, 16 MiB, 8 MiB");
    for n in 0..40 {
        let sql = format!(
            "SELECT count(), countIf(title = 'b' AND length(body) = 1048576) FROM {{db}}.docs{n} FINAL"
        );
        assert_eq!(fixture.query(&sql), "1\t1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_updated_many_times_has_its_large_value_written_once_in_a_mirror() {
    let fixture = Fixture::new();
    let docs = docs();
    let mut lane = fixture.lane(&[&docs]).await;
    large_rows(&fixture, &mut lane, &docs, 2).await;
    let titles: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let mut updates: Vec<Event> =
        (0..).zip(&titles).map(|(n, title)| update(&docs, (11, n), &touched("1", title))).collect();
    // A value that one of them brings is kept by those behind it.
    updates[250] = update(&docs, (11, 250), &[T("1"), T("en"), T("250"), U, U, U, T("7")]);
    updates.push(update(&docs, (11, 500), &touched("0", "gone")));
    updates.push(delete(&docs, (11, 501), &[T("0"), T("en"), N, N, N, N, N]));
    let mut one = lane.prepare(Arc::new(batch(&updates))).await.unwrap();
    assert!(one.held_bytes() < 2 << 20, "{}", one.held_bytes());
    one.send().await.unwrap();
    assert!(!one.has_more());
    assert_eq!(
        fixture.query(
            "SELECT d.id, title, price, d.body = b.body FROM (SELECT * FROM {db}.docs FINAL) AS d \
             JOIN {db}.before AS b ON d.id = b.id"
        ),
        "1\t499\t7\t1"
    );
}
