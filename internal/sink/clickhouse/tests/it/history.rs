use crate::support::Cell::{N, T};
use crate::support::*;
use replicator_config::SchemaNaming;
use replicator_types::{Op, oid};
use std::sync::Arc;

const ROWS: &str = "SELECT id, state, note, _op FROM {db}.orders ORDER BY _version";

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_a_row_exactly_once_however_a_replay_is_cut() {
    let fixture = Fixture::history();
    let orders = orders();
    let events = [
        insert(&orders, (10, 0), &[T("1"), T("a"), N]),
        insert(&orders, (10, 1), &[T("2"), T("a"), N]),
        update(&orders, (11, 0), &[T("1"), T("b"), N]),
        update(&orders, (12, 0), &[T("3"), T("b"), N]).moved_from(&[T("1"), N, N]),
        delete(&orders, (13, 0), &[T("2"), N, N]),
        delete(&orders, (14, 0), &[T("3"), T("b"), T("full")]).full(),
        event(&orders, Op::Truncate, (15, 0)),
        insert(&orders, (16, 0), &[T("1"), T("new"), N]),
    ];
    let rows = "1\ta\t\\N\tinsert\n2\ta\t\\N\tinsert\n1\tb\t\\N\tupdate\n1\t\\N\t\\N\tdelete\n3\tb\t\\N\tupdate\n\
                2\t\\N\t\\N\tdelete\n3\tb\tfull\tdelete\n0\t\\N\t\\N\ttruncate\n1\tnew\t\\N\tinsert";
    // The first run dies after four batches of one change, in the second after all.
    for (cut, written) in [(1, 4), (3, 8), (2, 8), (8, 8)] {
        let mut lane = fixture.lane(&[&orders]).await;
        for part in events[..written].chunks(cut) {
            write(&mut lane, fenced(part)).await;
        }
    }
    assert_eq!(fixture.query(ROWS), rows);
    assert_eq!(
        fixture
            .query("SELECT argMax(_op, _version) FROM {db}.orders GROUP BY id ORDER BY id LIMIT 1 OFFSET 1"),
        "insert",
        "the newest row of a key says what has become of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_that_a_crash_left_between_two_batches_is_filled() {
    let fixture = Fixture::history();
    let orders = orders();
    let events: Vec<_> =
        (0..6_u64).map(|n| insert(&orders, (10, n), &[T(&n.to_string()), T("a"), N])).collect();
    let mut lane = fixture.lane(&[&orders]).await;
    // Of two batches in flight the second arrived.
    write(&mut lane, batch(&events[3..5])).await;
    let mut lane = fixture.lane(&[&orders]).await;
    write(&mut lane, batch(&events[..4])).await;
    write(&mut lane, batch(&events[4..])).await;
    assert_eq!(
        fixture.query("SELECT groupArray(id) FROM (SELECT id FROM {db}.orders ORDER BY _version)"),
        "[0,1,2,3,4,5]"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_takes_updates_of_a_table_without_a_key() {
    let mut fixture = Fixture::history();
    fixture.config.schema_naming = SchemaNaming::Prefix;
    let log = Arc::new(table("audit.log", vec![column("n", oid::INT4)]));
    let mut lane = fixture.lane(&[&log]).await;
    let events = [
        insert(&log, (10, 0), &[T("1")]),
        update(&log, (11, 0), &[T("2")]),
        delete(&log, (12, 0), &[T("2")]).full(),
    ];
    for _ in 0..2 {
        write(&mut lane, batch(&events)).await;
    }
    assert_eq!(
        fixture.query("SELECT n, _op FROM {db}.audit_log ORDER BY _version"),
        "1\tinsert\n2\tupdate\n2\tdelete"
    );
}
