use crate::support::Cell::{N, T, U};
use crate::support::*;
use replicator_config::SchemaNaming;
use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Column, Op, Relation, oid};
use std::sync::Arc;

fn at(attnum: i16, column: Column) -> Column {
    Column { attnum, ..column }
}

fn text(attnum: i16, name: &str) -> Column {
    at(attnum, column(name, oid::TEXT))
}

/// `t (id bigint primary key, a text, b text)`
fn first() -> Arc<Relation> {
    Arc::new(table("t", vec![key("id", oid::INT8), column("a", oid::TEXT), column("b", oid::TEXT)]))
}

/// Notes of an earlier state, as after a crash between a statement and its note.
fn forget_notes_since(fixture: &Fixture, sequence: &str) {
    fixture.query(&format!(
        "ALTER TABLE {{db}}._replicator_notes DELETE WHERE sequence > {sequence} SETTINGS mutations_sync = 2"
    ));
}

fn last_note(fixture: &Fixture) -> String {
    fixture.query("SELECT max(sequence) FROM {db}._replicator_notes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_there_with_its_version_and_has_for_older_rows_what_the_source_says() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("x"), N])])).await;
    let not_null = Column { not_null: true, missing_text: Some("5".into()), ..at(4, column("n", oid::INT4)) };
    let moment = Column {
        missing_text: Some("2024-01-01 00:00:00.5+00".into()),
        ..at(5, column("at", oid::TIMESTAMPTZ))
    };
    let flag = Column { missing_text: Some("t".into()), ..at(6, column("flag", oid::BOOL)) };
    let raw = Column { missing_text: Some("\\x00ff".into()), ..at(7, column("raw", oid::BYTEA)) };
    let words = Column { missing_text: Some("it's\\".into()), ..text(8, "words") };
    let none = Column { not_null: true, ..text(9, "none") };
    // Without a counterpart: NULL, and no zero.
    let no_number = Column {
        not_null: true,
        missing_text: Some("NaN".into()),
        type_modifier: (12 << 16 | 2) + 4,
        ..at(10, column("no_number", oid::NUMERIC))
    };
    let v2 = altered(
        &v1,
        20,
        vec![
            key("id", oid::INT8),
            text(2, "a"),
            not_null,
            moment,
            flag,
            raw,
            words,
            none,
            no_number,
            text(3, "b"),
        ],
    );
    announce(&mut lane, &v2, (20, 0)).await;
    // A row that is written now has what it says, NULL as well.
    let row = [T("2"), N, T("7"), N, N, N, N, T("z"), T("1"), T("y")];
    write(&mut lane, batch(&[insert(&v2, (20, 0), &row)])).await;
    assert_eq!(
        fixture.query(
            "SELECT id, a, n, at, flag, hex(raw), words, none, no_number, b FROM {db}.t_current ORDER BY id"
        ),
        "1\tx\t5\t2024-01-01 00:00:00.500000\ttrue\t00FF\tit\\'s\\\\\t\\N\t\\N\t\\N\n2\t\\N\t7\t\\N\t\\N\t\\N\t\\N\tz\t1\ty"
    );
    assert_eq!(
        fixture.columns("t"),
        "id Int64, a Nullable(String), n Int32, at Nullable(DateTime64(6, 'UTC')), flag Nullable(Bool), \
         raw Nullable(String), words Nullable(String), none Nullable(String), no_number Nullable(Decimal(12, 2)), b Nullable(String)",
        "each behind the one that it is behind at the source"
    );
    // Old changes come again: they have what older rows have.
    let mut lane = fixture.lane(&[&v2]).await;
    write(
        &mut lane,
        batch(&[insert(&v1, (10, 0), &[T("1"), T("x"), N]), insert(&v1, (11, 0), &[T("3"), N, N])]),
    )
    .await;
    assert_eq!(
        fixture.query("SELECT id, n, flag FROM {db}.t_current ORDER BY id"),
        "1\t5\ttrue\n2\t7\t\\N\n3\t5\ttrue"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_columns_that_exchange_their_names_keep_their_values() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("of a"), T("of b")])])).await;
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), text(2, "b"), text(3, "a")]);
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("new b"), T("new a")])])).await;
    let rows = "SELECT id, a, b FROM {db}.t_current ORDER BY id";
    assert_eq!(fixture.query(rows), "1\tof b\tof a\n2\tnew a\tnew b");
    // A chain: a goes, b takes its name, c is new under the name of b.
    let v3 = altered(&v2, 30, vec![key("id", oid::INT8), text(2, "a"), text(4, "b")]);
    announce(&mut lane, &v3, (30, 0)).await;
    assert_eq!(fixture.query(rows), "1\tof a\t\\N\n2\tnew b\t\\N");
    // Replays of both older versions end in the columns that carry their attributes now.
    let mut lane = fixture.lane(&[&v3]).await;
    write(
        &mut lane,
        batch(&[
            insert(&v1, (10, 0), &[T("1"), T("of a"), T("of b")]),
            insert(&v1, (11, 0), &[T("3"), T("of a"), T("of b")]),
        ]),
    )
    .await;
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("new b"), T("new a")])])).await;
    announce(&mut lane, &v3, (30, 0)).await;
    assert_eq!(fixture.query(rows), "1\tof a\t\\N\n2\tnew b\t\\N\n3\tof a\t\\N");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_dropped_and_added_again_has_none_of_its_old_values() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("old"), T("b")])])).await;
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), text(3, "b"), at(4, column("a", oid::INT4))]);
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("c"), T("9")])])).await;
    // The old column's values are left out when they come again.
    let mut lane = fixture.lane(&[&v2]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("old"), T("b")])])).await;
    write(&mut lane, batch(&[update(&v2, (21, 0), &[T("1"), U, T("5")])])).await;
    assert_eq!(fixture.query("SELECT id, a, b FROM {db}.t_current ORDER BY id"), "1\t5\tb\n2\t9\tc");
    assert_eq!(fixture.columns("t"), "id Int64, b Nullable(String), a Nullable(Int32)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_statement_and_the_note_changes_nothing() {
    let fixture = Fixture::new();
    let v1 = first();
    let v2 = altered(
        &v1,
        20,
        vec![at(1, key("ident", oid::INT8)), text(3, "a"), text(2, "b"), at(4, column("n", oid::INT4))],
    );
    let row = insert(&v1, (10, 0), &[T("1"), T("of a"), T("of b")]);
    let changed = update(&v2, (20, 0), &[T("1"), T("of b"), T("of a"), T("4")]);
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(std::slice::from_ref(&row))).await;
    let notes = last_note(&fixture);
    for _ in 0..3 {
        // The stream begins before the version each time.
        write(&mut lane, batch(std::slice::from_ref(&row))).await;
        announce(&mut lane, &v2, (20, 0)).await;
        write(&mut lane, batch(std::slice::from_ref(&changed))).await;
        assert_eq!(fixture.query("SELECT ident, a, b, n FROM {db}.t_current"), "1\tof b\tof a\t4");
        forget_notes_since(&fixture, &notes);
        lane = fixture.lane(&[&v2]).await;
    }
    // In the middle of an exchange of names.
    let v3 = altered(
        &v2,
        30,
        vec![at(1, key("ident", oid::INT8)), text(2, "a"), text(3, "b"), at(4, column("n", oid::INT4))],
    );
    announce(&mut lane, &v2, (20, 0)).await;
    fixture.query("DROP VIEW {db}.t_current");
    fixture.query("ALTER TABLE {db}.t RENAME COLUMN a TO b_renaming");
    let mut lane = fixture.lane(&[&v2]).await;
    announce(&mut lane, &v3, (30, 0)).await;
    assert_eq!(fixture.query("SELECT ident, a, b, n FROM {db}.t_current"), "1\tof a\tof b\t4");
    assert_eq!(
        fixture.query("SELECT name FROM system.tables WHERE database = '{db}' ORDER BY name"),
        "_replicator_notes\nt\nt_current",
        "nothing is left over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_what_rows_are_told_apart_by_and_replays_of_the_old_one_change_nothing() {
    for deletes in [replicator_config::DeleteMode::Hard, replicator_config::DeleteMode::Soft] {
        let mut fixture = Fixture::new();
        fixture.config.deletes = deletes;
        let v1 = Arc::new(table(
            "t",
            vec![
                key("id", oid::INT8),
                Column { not_null: true, ..column("code", oid::TEXT) },
                column("v", oid::TEXT),
            ],
        ));
        let mut lane = fixture.lane(&[&v1]).await;
        let old = [
            insert(&v1, (10, 0), &[T("1"), T("one"), T("x")]),
            insert(&v1, (10, 1), &[T("2"), T("two"), T("x")]),
            insert(&v1, (10, 2), &[T("3"), T("three"), T("x")]),
            event(&v1, Op::Truncate, (10, 3)),
            insert(&v1, (10, 4), &[T("1"), T("one"), T("x")]),
            insert(&v1, (10, 5), &[T("2"), T("two"), T("x")]),
            insert(&v1, (10, 6), &[T("3"), T("three"), T("x")]),
            update(&v1, (11, 0), &[T("1"), T("uno"), T("y")]),
            delete(&v1, (12, 0), &[T("3"), N, N]),
        ];
        write(&mut lane, batch(&old)).await;
        fixture.query("ALTER TABLE {db}.t ADD COLUMN mine UInt8 DEFAULT 3");
        let v2 = altered(
            &v1,
            20,
            vec![at(1, column("id", oid::INT8)), at(2, key("code", oid::TEXT)), text(3, "v")],
        );
        announce(&mut lane, &v2, (20, 0)).await;
        let new = [
            update(&v2, (20, 0), &[T("9"), T("uno"), T("z")]),
            delete(&v2, (20, 1), &[N, T("two"), N]),
            insert(&v2, (20, 2), &[T("4"), T(""), T("empty")]),
        ];
        write(&mut lane, batch(&new)).await;
        let rows = "SELECT id, code, v, mine FROM {db}.t_current ORDER BY id";
        let expected = "4\t\tempty\t3\n9\tuno\tz\t3";
        assert_eq!(fixture.query(rows), expected);
        assert_eq!(
            fixture.query("SELECT trim(BOTH '()' FROM sorting_key) FROM system.tables WHERE database = '{db}' AND name = 't'"),
            "code"
        );
        // A crash, with and without the note: everything comes again.
        for forgotten in [false, true] {
            if forgotten {
                // The note before the last is the one that says from where on the new key counts.
                let last = fixture.query("SELECT max(sequence) - 1 FROM {db}._replicator_notes");
                forget_notes_since(&fixture, &last);
            }
            let mut lane = fixture.lane(&[&v2]).await;
            for event in &old {
                write(&mut lane, batch(std::slice::from_ref(event))).await;
            }
            announce(&mut lane, &v2, (20, 0)).await;
            write(&mut lane, batch(&new)).await;
            assert_eq!(fixture.query(rows), expected, "forgotten: {forgotten}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_was_cut_off_begins_anew() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("a"), T("b")])])).await;
    for name in ["t_replicator_rebuilt", "t_rebuilt"] {
        fixture.query(&format!("CREATE TABLE {{db}}.{name} ENGINE = MergeTree ORDER BY x AS SELECT 1 AS x"));
    }
    // int8 to numeric: what the table is sorted by gets another type.
    let wider = Column { type_modifier: (30 << 16 | 2) + 4, ..at(1, key("id", oid::NUMERIC)) };
    let v2 = altered(&v1, 20, vec![wider, text(2, "a"), text(3, "b")]);
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[update(&v2, (20, 0), &[T("1.00"), T("c"), U])])).await;
    assert_eq!(fixture.query("SELECT id, a, b FROM {db}.t_current"), "1\tc\tb");
    assert_eq!(fixture.columns("t"), "id Decimal(30, 2), a Nullable(String), b Nullable(String)");
    let names = "SELECT name FROM system.tables WHERE database = '{db}' AND endsWith(name, 'rebuilt')";
    assert_eq!(fixture.query(names), "t_rebuilt", "somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_gets_a_key_and_loses_it_again() {
    let fixture = Fixture::new();
    let v1 = Arc::new(table("t", vec![column("id", oid::INT8), column("v", oid::TEXT)]));
    let mut lane = fixture.lane(&[&v1]).await;
    write(
        &mut lane,
        batch(&[insert(&v1, (10, 0), &[T("1"), T("x")]), insert(&v1, (10, 1), &[T("2"), T("x")])]),
    )
    .await;
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), column("v", oid::TEXT)]);
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[update(&v2, (20, 0), &[T("1"), T("y")])])).await;
    assert_eq!(fixture.query("SELECT id, v FROM {db}.t_current ORDER BY id"), "1\ty\n2\tx");
    let v3 = altered(&v2, 30, vec![column("id", oid::INT8), column("v", oid::TEXT)]);
    announce(&mut lane, &v3, (30, 0)).await;
    write(&mut lane, batch(&[insert(&v3, (30, 0), &[T("1"), T("y")]), insert(&v3, (30, 1), &[N, N])])).await;
    assert_eq!(
        fixture.query("SELECT id, v FROM {db}.t_current ORDER BY id, v"),
        "1\ty\n1\ty\n2\tx\n\\N\t\\N"
    );
    // A key that no row has a value for.
    let v4 = altered(
        &v3,
        40,
        vec![column("id", oid::INT8), column("v", oid::TEXT), at(3, key("serial", oid::INT8))],
    );
    let error = try_announce(&mut lane, &v4, (40, 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(
        error.to_string().contains("serial") && error.to_string().contains("resync --table public.t"),
        "{error}"
    );
    assert_eq!(fixture.query("SELECT count() FROM {db}.t_current"), "4", "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_takes_its_rows_along() {
    for naming in [SchemaNaming::Prefix, SchemaNaming::Database] {
        let mut fixture = Fixture::new();
        fixture.config.schema_naming = naming;
        let v1 = first();
        let mut lane = fixture.lane(&[&v1]).await;
        write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("x"), N])])).await;
        let notes = last_note(&fixture);
        let schema = format!("{}_crm", fixture.config.database);
        let v2 = Arc::new(Relation {
            schema: schema.clone(),
            name: "u".into(),
            ..(*altered(&v1, 20, v1.columns.clone())).clone()
        });
        announce(&mut lane, &v2, (20, 0)).await;
        write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("y"), N])])).await;
        let place = match naming {
            SchemaNaming::Prefix => format!("{{db}}.{schema}_u"),
            SchemaNaming::Database => format!("{schema}.u"),
        };
        let rows = format!("SELECT id, a FROM {place}_current ORDER BY id");
        assert_eq!(fixture.query(&rows), "1\tx\n2\ty");
        assert_eq!(
            fixture
                .query("SELECT count() FROM system.tables WHERE database = '{db}' AND startsWith(name, 't')"),
            "0"
        );
        // The note did not make it, and the old version comes again.
        forget_notes_since(&fixture, &notes);
        let mut lane = fixture.lane(&[]).await;
        announce(&mut lane, &v2, (20, 0)).await;
        write(&mut lane, batch(&[update(&v1, (11, 0), &[T("1"), T("z"), N])])).await;
        assert_eq!(fixture.query(&rows), "1\tz\n2\ty");
        // Nor did it now, and a run begins that looks for all tables first.
        forget_notes_since(&fixture, &notes);
        let mut lane = fixture.lane(&[&v2]).await;
        write(&mut lane, batch(&[update(&v1, (12, 0), &[T("1"), T("again"), N])])).await;
        announce(&mut lane, &v2, (20, 0)).await;
        assert_eq!(fixture.query(&rows), "1\tagain\n2\ty");
        if naming == SchemaNaming::Database {
            fixture.query(&format!("DROP DATABASE {schema}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_does_not_take_the_place_of_another() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("x"), N])])).await;
    fixture.query("CREATE TABLE {db}.u (mine UInt8) ENGINE = MergeTree ORDER BY mine");
    let v2 = Arc::new(Relation { name: "u".into(), ..(*altered(&v1, 20, v1.columns.clone())).clone() });
    let error = try_announce(&mut lane, &v2, (20, 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(error.to_string().contains("`.`u`") && error.to_string().contains("rename or drop"), "{error}");
    fixture.query("DROP TABLE {db}.u");
    let mut lane = fixture.lane(&[]).await;
    announce(&mut lane, &v2, (20, 0)).await;
    assert_eq!(fixture.query("SELECT id, a FROM {db}.u_current"), "1\tx");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_the_name_of_one_that_was_renamed_gets_none_of_its_rows() {
    let fixture = Fixture::new();
    let old = first();
    let mut lane = fixture.lane(&[&old]).await;
    write(&mut lane, batch(&[insert(&old, (10, 0), &[T("1"), T("old"), N])])).await;
    // ALTER TABLE t RENAME TO t_old; CREATE TABLE t – and the first change is of the new one.
    let new = Arc::new(Relation { since: replicator_types::Lsn(20), ..(*first()).clone() });
    announce(&mut lane, &new, (20, 0)).await;
    write(&mut lane, batch(&[insert(&new, (20, 0), &[T("7"), T("new"), N])])).await;
    let renamed =
        Arc::new(Relation { name: "t_old".into(), ..(*altered(&old, 30, old.columns.clone())).clone() });
    announce(&mut lane, &renamed, (30, 0)).await;
    write(&mut lane, batch(&[insert(&renamed, (30, 0), &[T("2"), T("more"), N])])).await;
    assert_eq!(fixture.query("SELECT id, a FROM {db}.t_current"), "7\tnew");
    assert_eq!(fixture.query("SELECT id, a FROM {db}.t_old_current ORDER BY id"), "1\told\n2\tmore");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_keeps_the_columns_that_the_source_dropped() {
    let fixture = Fixture::history();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("old"), T("b")])])).await;
    // a is dropped and added anew, the key gets another name, b another type.
    let v2 = altered(
        &v1,
        20,
        vec![at(1, key("ident", oid::INT8)), at(3, column("b", oid::TEXT)), at(4, column("a", oid::INT4))],
    );
    for _ in 0..2 {
        announce(&mut lane, &v2, (20, 0)).await;
        write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("c"), T("5")])])).await;
        assert_eq!(
            fixture.query("SELECT ident, a_2, a, b, _op FROM {db}.t ORDER BY _version"),
            "1\told\t\\N\tb\tinsert\n2\t\\N\t5\tc\tinsert"
        );
        lane = fixture.lane(&[&v2]).await;
        write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("old"), T("b")])])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_somebody_else_added_are_left_alone() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("x"), N])])).await;
    fixture.query("ALTER TABLE {db}.t ADD COLUMN mine String DEFAULT 'm', ADD COLUMN c UInt8");
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), text(3, "b")]);
    announce(&mut lane, &v2, (20, 0)).await;
    assert_eq!(fixture.columns("t"), "id Int64, b Nullable(String), mine String, c UInt8");
    let v3 = altered(&v2, 30, vec![key("id", oid::INT8), text(3, "c")]);
    let error = try_announce(&mut lane, &v3, (30, 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(
        error.to_string().contains("column c") && error.to_string().contains("rename or drop"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_alters_nothing_before_the_stream_gets_there() {
    let fixture = Fixture::new();
    let v1 = first();
    let mut lane = fixture.lane(&[&v1]).await;
    let v1_met = altered(&v1, 9, v1.columns.clone());
    announce(&mut lane, &v1_met, (9, 0)).await;
    write(&mut lane, batch(&[insert(&v1_met, (10, 0), &[T("1"), T("x"), T("kept")])])).await;
    // While it was away, the source got another key and lost a column; the stream has that yet to tell.
    let v2 = altered(&v1_met, 20, vec![column("id", oid::INT8), at(2, key("a", oid::TEXT))]);
    let now = Arc::new(Relation { since: replicator_types::Lsn(99), version: 0, ..(*v2).clone() });
    let mut lane = fixture.lane(&[&now]).await;
    let v1_again = Arc::new(Relation { version: 0, since: replicator_types::Lsn(11), ..(*v1).clone() });
    announce(&mut lane, &v1_again, (11, 0)).await;
    write(&mut lane, batch(&[update(&v1_again, (11, 0), &[T("1"), T("y"), U])])).await;
    assert_eq!(fixture.query("SELECT id, a, b FROM {db}.t_current"), "1\ty\tkept");
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[event(&v2, Op::Truncate, (20, 0)), insert(&v2, (20, 1), &[T("5"), T("z")])]))
        .await;
    assert_eq!(fixture.query("SELECT id, a FROM {db}.t_current"), "5\tz");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_one_transaction_are_told_apart() {
    let fixture = Fixture::new();
    let v1 = first();
    let v2 = altered(&v1, 20, [v1.columns.clone(), vec![text(4, "c")]].concat());
    let v3 = altered(&v2, 20, [v2.columns.clone(), vec![text(5, "d")]].concat());
    let mut lane = fixture.lane(&[&v1]).await;
    for _ in 0..2 {
        announce(&mut lane, &v2, (20, 0)).await;
        write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("1"), N, N, T("c")])])).await;
        announce(&mut lane, &v3, (20, 1)).await;
        write(&mut lane, batch(&[insert(&v3, (20, 1), &[T("2"), N, N, T("c"), T("d")])])).await;
        assert_eq!(fixture.query("SELECT id, c, d FROM {db}.t_current ORDER BY id"), "1\tc\t\\N\n2\tc\td");
        lane = fixture.lane(&[&v3]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_lanes_find_the_table_as_the_fenced_batch_left_it() {
    let mut fixture = Fixture::new();
    fixture.shards = 2;
    let v1 = first();
    let (sink, stream) = fixture.run(&[&v1]).await;
    let mut lane = sink.open_lane(0, &stream).await.unwrap();
    let mut other = sink.open_lane(1, &stream).await.unwrap();
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("of a"), T("of b")])])).await;
    write(&mut other, batch(&[insert(&v1, (10, 1), &[T("2"), T("of a"), T("of b")])])).await;
    // An exchange of names would go unnoticed: every name is still there.
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), text(2, "b"), text(3, "a")]);
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut other, batch(&[insert(&v2, (20, 0), &[T("2"), T("new b"), T("new a")])])).await;
    // Held back elsewhere, and late.
    write(&mut other, caught_up(&[insert(&v1, (11, 0), &[T("3"), T("of a"), T("of b")])])).await;
    assert_eq!(
        fixture.query("SELECT id, a, b FROM {db}.t_current ORDER BY id"),
        "1\tof b\tof a\n2\tnew a\tnew b\n3\tof b\tof a"
    );
}
