use crate::support::Cell::{N, T};
use crate::support::*;
use replicator_config::DeleteMode;
use replicator_sink::ErrorKind;
use replicator_types::{Op, oid};
use std::sync::Arc;

const ROWS: &str = "SELECT id, state, note FROM {db}.orders FINAL ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_and_deletes_give_the_sources_rows() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let first = [
        insert(&orders, (10, 0), &[T("1"), T("new"), N]),
        insert(&orders, (10, 1), &[T("2"), T("new"), T("")]),
        insert(&orders, (10, 2), &[T("3"), T("new"), T("\\N")]),
        update(&orders, (11, 0), &[T("1"), T("paid"), T("x\ty")]),
    ];
    write(&mut lane, batch(&first)).await;
    write(&mut lane, batch(&[delete(&orders, (12, 0), &[T("2"), N, N])])).await;
    assert_eq!(fixture.query(ROWS), "1\tpaid\tx\\ty\n3\tnew\t\\\\N");
    assert_eq!(
        fixture.query("SELECT * FROM {db}.orders_current ORDER BY id"),
        fixture.query(ROWS),
        "the view has the source's columns and no others"
    );
    assert_eq!(
        fixture.query("SELECT _version, _deleted, _commit_time FROM {db}.orders FINAL WHERE id = 3"),
        format!("{}\t0\t2024-01-02 03:04:05.000000", (10_u128 << 64) + 2)
    );
    write(&mut lane, batch(&[insert(&orders, (13, 0), &[T("2"), T("again"), N])])).await;
    assert_eq!(fixture.query(ROWS), "1\tpaid\tx\\ty\n2\tagain\t\\N\n3\tnew\t\\\\N");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_cut_into_other_batches_changes_nothing() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut events = Vec::new();
    for commit in 10..30_u64 {
        let id = (commit % 5).to_string();
        let state = format!("s{commit}");
        events.push(match commit % 4 {
            3 => delete(&orders, (commit, 0), &[T(&id), N, N]),
            _ => insert(&orders, (commit, 0), &[T(&id), T(&state), N]),
        });
    }
    let mut lane = fixture.lane(&[&orders]).await;
    write(&mut lane, batch(&events)).await;
    let expected = fixture.query(ROWS);
    assert!(!expected.is_empty());
    for cut in [1, 3, 7, events.len()] {
        let mut lane = fixture.lane(&[&orders]).await;
        for part in events[5..].chunks(cut) {
            write(&mut lane, batch(part)).await;
        }
        assert_eq!(fixture.query(ROWS), expected, "cut into {cut}");
        fixture.query("OPTIMIZE TABLE {db}.orders FINAL");
        assert_eq!(fixture.query(ROWS), expected, "merged, cut into {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_sent_again_after_it_succeeded_adds_no_part() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let events = [insert(&orders, (10, 0), &[T("1"), T("new"), N])];
    let mut sent = lane.prepare(Arc::new(batch(&events))).await.unwrap();
    sent.send().await.unwrap();
    sent.send().await.unwrap();
    // The same batch anew, as after a crash between the insert and the checkpoint.
    let mut again = fixture.lane(&[&orders]).await;
    write(&mut again, batch(&events)).await;
    assert_eq!(fixture.query("SELECT count() FROM {db}.orders"), "1");
    // And one of the same positions with other content is not taken for it.
    write(&mut again, batch(&[insert(&orders, (10, 0), &[T("2"), T("new"), N])])).await;
    assert_eq!(fixture.query("SELECT count() FROM {db}.orders"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_key_change_leaves_no_row_under_the_old_key() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    write(
        &mut lane,
        batch(&[
            insert(&orders, (10, 0), &[T("1"), T("a"), N]),
            insert(&orders, (10, 1), &[T("2"), T("b"), N]),
        ]),
    )
    .await;
    // A swap of two keys in one transaction, by way of a third.
    let swap = [
        delete(&orders, (11, 0), &[T("1"), N, N]),
        insert(&orders, (11, 1), &[T("3"), T("a"), N]),
        delete(&orders, (11, 2), &[T("2"), N, N]),
        insert(&orders, (11, 3), &[T("1"), T("b"), N]),
        delete(&orders, (11, 4), &[T("3"), N, N]),
        insert(&orders, (11, 5), &[T("2"), T("a"), N]),
    ];
    write(&mut lane, batch(&swap)).await;
    assert_eq!(fixture.query(ROWS), "1\tb\t\\N\n2\ta\t\\N");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_takes_what_was_before_it_and_nothing_after_also_when_replayed() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let before = [insert(&orders, (10, 0), &[T("1"), T("old"), N])];
    let truncate = [
        insert(&orders, (11, 0), &[T("2"), T("old"), N]),
        event(&orders, Op::Truncate, (11, 1)),
        insert(&orders, (11, 2), &[T("3"), T("new"), N]),
    ];
    let after = [insert(&orders, (12, 0), &[T("4"), T("new"), N])];
    for _ in 0..2 {
        write(&mut lane, batch(&before)).await;
        write(&mut lane, fenced(&truncate)).await;
        write(&mut lane, batch(&after)).await;
        // The second time every insert has a token that the table has seen before the truncate.
        assert_eq!(fixture.query(ROWS), "3\tnew\t\\N\n4\tnew\t\\N");
        lane = fixture.lane(&[&orders]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_of_a_table_without_a_key_are_kept_apart() {
    let fixture = Fixture::new();
    let log = Arc::new(table("log", vec![column("n", oid::INT4), column("text", oid::TEXT)]));
    let rows: Vec<_> = (0..3).map(|ordinal| insert(&log, (10, ordinal), &[T("1"), T("same")])).collect();
    for cut in [3, 1] {
        let mut lane = fixture.lane(&[&log]).await;
        for part in rows.chunks(cut) {
            write(&mut lane, batch(part)).await;
        }
        assert_eq!(fixture.query("SELECT n, text, count() FROM {db}.log FINAL GROUP BY ALL"), "1\tsame\t3");
    }
    let mut lane = fixture.lane(&[&log]).await;
    for refused in
        [update(&log, (11, 0), &[T("2"), T("same")]), delete(&log, (11, 0), &[T("1"), T("same")]).full()]
    {
        let error = try_write(&mut lane, batch(&[refused])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        for part in ["public.log", "primary key", "mode = \"history\""] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deletes_keep_the_row_marked_and_the_view_hides_it() {
    let mut fixture = Fixture::new();
    fixture.config.deletes = DeleteMode::Soft;
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let events = [
        insert(&orders, (10, 0), &[T("1"), T("a"), N]),
        insert(&orders, (10, 1), &[T("2"), T("b"), T("n")]),
        delete(&orders, (11, 0), &[T("2"), T("b"), T("n")]).full(),
    ];
    write(&mut lane, batch(&events)).await;
    assert_eq!(
        fixture.query("SELECT id, state, note, _deleted FROM {db}.orders FINAL ORDER BY id"),
        "1\ta\t\\N\t0\n2\tb\tn\t1"
    );
    assert_eq!(fixture.query("SELECT id FROM {db}.orders_current"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_tables_is_one_write() {
    let fixture = Fixture::new();
    let tables: Vec<_> = (0..7)
        .map(|number| {
            Arc::new(table(&format!("t{number}"), vec![key("id", oid::INT4), column("v", oid::TEXT)]))
        })
        .collect();
    // Not made beforehand: they were added to the publication later.
    let mut lane = fixture.lane(&[]).await;
    let events: Vec<_> =
        (0..70_u64).map(|n| insert(&tables[n as usize % 7], (10, n), &[T(&n.to_string()), T("v")])).collect();
    write(&mut lane, batch(&events)).await;
    for number in 0..7 {
        assert_eq!(
            fixture.query(&format!("SELECT count(), min(id) FROM {{db}}.t{number} FINAL")),
            format!("10\t{number}")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_one_part() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let note = "n".repeat(200);
    let events: Vec<_> =
        (0..20_000_u64).map(|n| insert(&orders, (10, n), &[T(&n.to_string()), T("s"), T(&note)])).collect();
    write(&mut lane, batch(&events)).await;
    assert_eq!(
        fixture
            .query("SELECT count(), uniqExact(id), uniqExact(_part), min(note) = max(note) FROM {db}.orders"),
        "20000\t20000\t1\t1"
    );
}
