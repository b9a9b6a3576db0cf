use super::*;
use pgoutput::ColumnMessage;
use replicator_types::{Column, ReplicaIdentity, oid};

fn message(columns: Vec<ColumnMessage<'static>>) -> RelationMessage<'static> {
    let replica_identity = ReplicaIdentity::Default;
    RelationMessage { xid: None, oid: 7, schema: "public", name: "t", replica_identity, columns }
}

fn column(name: &'static str, type_oid: u32, type_modifier: i32) -> ColumnMessage<'static> {
    ColumnMessage { in_identity: name == "id", name, type_oid, type_modifier }
}

/// Texts by attribute number; `id` is the key.
fn catalog(columns: &[(i16, &str)], dropped: &[i16]) -> TableCatalog {
    let column = |&(attnum, name): &(i16, &str)| Column { name: name.into(), attnum, ..Column::default() };
    TableCatalog {
        oid: 7,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.iter().map(column).collect(),
        primary_key: vec!["id".into()],
        identity_index: vec![],
        read_at: Lsn(1000),
        dropped: dropped.to_vec(),
        nondeterministic: vec![],
        storage: replicator_types::Storage::default(),
        generated: vec![],
        generated_key: vec![],
    }
}

fn at(since: u64) -> Place {
    Place { since: Lsn(since), xid: 0, was_kept: false }
}

fn met(
    relations: &mut Relations,
    message: &RelationMessage<'_>,
    place: Place,
) -> (Arc<Relation>, Option<Arc<Relation>>) {
    let Met { relation, before, .. } = relations.apply(message, place);
    (relation, before)
}

fn texts(names: &[&'static str]) -> RelationMessage<'static> {
    message(names.iter().map(|name| column(name, oid::TEXT, -1)).collect())
}

fn attnums(relation: &Relation) -> Vec<(i16, &str)> {
    relation.columns.iter().map(|column| (column.attnum, column.name.as_str())).collect()
}

#[test]
fn a_message_from_before_a_drop_and_a_rename_is_not_misled_by_the_newer_catalog() {
    let mut relations = Relations::default();
    let newer = catalog(&[(1, "id"), (3, "a"), (4, "c")], &[2]);
    // As after a restart: the catalog is also what is known.
    relations.begin_with(vec![Arc::new(newer.relation())], Lsn(5));
    relations.learn(newer);
    let old =
        ["id", "a", "b", "c"].map(|name| column(name, if name == "a" { oid::INT4 } else { oid::TEXT }, -1));
    let (relation, _) = met(&mut relations, &message(old.to_vec()), at(5));
    assert_eq!(attnums(&relation), [(1, "id"), (2, "a"), (3, "b"), (4, "c")]);
}

/// The catalog, with the transaction that dropped each column.
fn catalog_of(columns: &[(i16, &str)], dropped: &[(i16, u32)]) -> TableCatalog {
    let numbers: Vec<i16> = dropped.iter().map(|(attnum, _)| *attnum).collect();
    let mut catalog = catalog(columns, &numbers);
    catalog.storage.attributes = dropped.to_vec();
    catalog
}

fn version(columns: &[(i16, &str)], since: u64) -> Arc<Relation> {
    Arc::new(Relation { since: Lsn(since), ..catalog(columns, &[]).relation() })
}

#[test]
fn a_column_has_the_number_that_it_had_when_its_transaction_ran_whoever_has_its_name_by_now() {
    let mut relations = Relations::default();
    relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
    relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 700)]));
    let place = |since, xid| Place { since: Lsn(since), xid, was_kept: false };
    let (before, _) = met(&mut relations, &texts(&["id", "a"]), place(20, 699));
    assert_eq!(attnums(&before), [(1, "id"), (2, "a")]);
    let (after, told) = met(&mut relations, &texts(&["id", "a"]), place(30, 701));
    assert_eq!(attnums(&after), [(1, "id"), (3, "a")]);
    assert!(told.is_some());
    // Numbers of transactions wrap around.
    let mut relations = Relations::default();
    relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
    relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 5)]));
    let (before, _) = met(&mut relations, &texts(&["id", "a"]), place(20, u32::MAX - 3));
    assert_eq!(attnums(&before), [(1, "id"), (2, "a")]);
}

#[test]
fn a_transaction_that_drops_a_column_and_adds_another_of_its_name_is_laid_along_the_catalog() {
    let mut relations = Relations::default();
    relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
    relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 700)]));
    let (anew, _) =
        met(&mut relations, &texts(&["id", "a"]), Place { since: Lsn(20), xid: 700, was_kept: false });
    assert_eq!(attnums(&anew), [(1, "id"), (3, "a")]);
}

#[test]
fn versions_of_an_earlier_run_are_met_again_in_their_places_with_their_numbers() {
    let names = |versions: &[&[(i16, &'static str)]]| -> Vec<Vec<&'static str>> {
        versions.iter().map(|version| version.iter().map(|(_, name)| *name).collect()).collect()
    };
    // a passes its name on twice, and in the end has its own again.
    let versions: [&[(i16, &'static str)]; 4] = [
        &[(1, "id"), (2, "a"), (3, "b")],
        &[(1, "id"), (2, "x"), (3, "a"), (4, "b")],
        &[(1, "id"), (2, "b"), (3, "x"), (4, "a")],
        &[(1, "id"), (2, "a"), (3, "b"), (4, "x")],
    ];
    let newest = catalog_of(&[(1, "id"), (4, "a"), (5, "b"), (6, "x")], &[(2, 900), (3, 900)]);
    let mut relations = Relations::default();
    let kept: Vec<_> =
        versions.iter().zip(1..).map(|(columns, number)| version(columns, number * 10)).collect();
    relations.begin_with(kept, Lsn(15));
    assert_eq!(relations.told(7).map(|told| told.since), Some(Lsn(10)), "what lies before the watermark");
    relations.learn(newest);
    for (number, names) in names(&versions).iter().enumerate().skip(1) {
        let since = (number as u64 + 1) * 10;
        let (again, before) = met(&mut relations, &texts(names), at(since));
        assert_eq!(attnums(&again), versions[number]);
        assert_eq!(again.since, Lsn(since));
        assert!(before.is_some());
        // Described again, as after a reconnect.
        let place = Place { since: Lsn(since + 5), xid: 800, was_kept: false };
        let (same, before) = met(&mut relations, &texts(names), place);
        assert!(before.is_none() && attnums(&same) == attnums(&again));
    }
}

#[test]
fn a_version_that_the_catalog_told_of_is_met_again_from_before_and_from_behind() {
    let (old, new): (&[_], &[_]) =
        (&[(1, "id"), (2, "a"), (3, "b")], &[(1, "id"), (2, "b"), (3, "a"), (4, "c")]);
    for place in [20, 40] {
        let mut relations = Relations::default();
        relations.begin_with(vec![version(old, 10), version(new, 30)], Lsn(10));
        // By now everything has another name.
        relations.learn(catalog(&[(1, "id"), (2, "c"), (3, "b"), (5, "a")], &[4]));
        let (first, _) = met(&mut relations, &texts(&["id", "a", "b"]), at(15));
        assert_eq!(attnums(&first), old);
        let (again, _) = met(&mut relations, &texts(&["id", "b", "a", "c"]), at(place));
        assert_eq!(attnums(&again), new);
        assert_eq!(again.since, Lsn(place), "a run that begins before has to tell it again");
    }
}

#[test]
fn what_comes_behind_a_version_of_the_catalog_is_laid_along_it() {
    let mut relations = Relations::default();
    let (old, swapped): (&[_], &[_]) = (&[(1, "id"), (2, "a"), (3, "b")], &[(1, "id"), (2, "b"), (3, "a")]);
    relations.begin_with(vec![version(old, 10), version(swapped, 30)], Lsn(10));
    relations.learn(catalog(&[(1, "id"), (3, "a")], &[2]));
    let (next, before) = met(&mut relations, &texts(&["id", "b", "c"]), at(40));
    assert_eq!(attnums(&next), [(1, "id"), (2, "b"), (3, "c")]);
    assert_eq!(before.map(|before| before.since), Some(Lsn(10)), "this run has told of no other");
}

#[test]
fn the_same_shape_keeps_its_version_and_another_gets_the_next() {
    let mut relations = Relations::default();
    let narrow = message(vec![column("id", oid::INT8, -1)]);
    let wide = message(vec![column("id", oid::INT8, -1), column("v", oid::TEXT, -1)]);
    let (first, before) = met(&mut relations, &narrow, at(5));
    assert!(before.is_none());
    let (again, before) = met(&mut relations, &narrow, at(6));
    assert!(Arc::ptr_eq(&first, &again) && before.is_none());
    let (second, before) = met(&mut relations, &wide, at(7));
    assert_eq!((first.version, second.version), (0, 1));
    assert_eq!((first.since, second.since), (Lsn(5), Lsn(7)));
    assert!(before.is_some_and(|before| Arc::ptr_eq(&before, &first)));
    assert_eq!(second.key, [0]);
}

#[test]
fn under_full_the_primary_key_of_the_catalog_is_the_key() {
    let mut relations = Relations::default();
    let mut full = texts(&["id", "v"]);
    full.replica_identity = ReplicaIdentity::Full;
    full.columns.iter_mut().for_each(|column| column.in_identity = true);
    assert!(met(&mut relations, &full, at(1)).0.key.is_empty());
    relations.learn(catalog(&[(1, "id"), (2, "v")], &[]));
    assert_eq!(met(&mut relations, &full, at(2)).0.key, [0]);
}

#[test]
fn a_renamed_column_keeps_its_number_and_one_dropped_and_added_anew_has_another() {
    let mut relations = Relations::default();
    relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
    met(&mut relations, &texts(&["id", "a", "b"]), at(1));
    relations.learn(catalog(&[(1, "id"), (2, "x"), (3, "b")], &[]));
    let (renamed, _) = met(&mut relations, &texts(&["id", "x", "b"]), at(2));
    assert_eq!(attnums(&renamed), [(1, "id"), (2, "x"), (3, "b")]);
    relations.learn(catalog(&[(1, "id"), (3, "b"), (4, "x")], &[2]));
    let (anew, _) = met(&mut relations, &texts(&["id", "b", "x"]), at(3));
    assert_eq!(attnums(&anew), [(1, "id"), (3, "b"), (4, "x")]);
}

#[test]
fn a_message_older_than_the_catalog_is_laid_along_its_numbers() {
    // a was renamed to x, b to a, c dropped, and d added since.
    let ahead = catalog(&[(1, "id"), (2, "x"), (3, "a"), (5, "d")], &[4]);
    let mut relations = Relations::default();
    relations.learn(ahead.clone());
    let (old, _) = met(&mut relations, &texts(&["id", "a", "b", "c"]), at(1));
    // Without knowing better, `a` is the one of that name, and what follows it lies behind it.
    assert_eq!(attnums(&old).first(), Some(&(1, "id")));
    assert!(old.columns.windows(2).all(|pair| pair[0].attnum < pair[1].attnum), "{:?}", attnums(&old));

    // Known from before, they are all found.
    let mut relations = Relations::default();
    relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b"), (4, "c")], &[]));
    met(&mut relations, &texts(&["id", "a", "b", "c"]), at(1));
    relations.learn(ahead);
    let (old, _) = met(&mut relations, &texts(&["id", "a", "b", "c"]), at(2));
    assert_eq!(attnums(&old), [(1, "id"), (2, "a"), (3, "b"), (4, "c")]);
    let (swapped, _) = met(&mut relations, &texts(&["id", "x", "a", "c"]), at(3));
    assert_eq!(attnums(&swapped), [(1, "id"), (2, "x"), (3, "a"), (4, "c")]);
    let (newest, _) = met(&mut relations, &texts(&["id", "x", "a", "d"]), at(4));
    assert_eq!(attnums(&newest), [(1, "id"), (2, "x"), (3, "a"), (5, "d")]);
}

/// The numbers that a first message of the transaction 700 gets, and whether they are a guess.
fn numbered(
    before: &[(i16, &str)],
    catalog: TableCatalog,
    message: &RelationMessage<'_>,
) -> (Vec<i16>, bool) {
    let mut relations = Relations::default();
    if !before.is_empty() {
        relations.begin_with(vec![version(before, 10)], Lsn(10));
    }
    relations.learn(catalog);
    let place = Place { since: Lsn(20), xid: 700, was_kept: false };
    let Met { relation, is_guess, .. } = relations.apply(message, place);
    (relation.columns.iter().map(|column| column.attnum).collect(), is_guess)
}

/// The catalog with the transaction that wrote each column last; those without a name are dropped.
fn written(columns: &[(i16, &str, u32)]) -> TableCatalog {
    let (live, dropped): (Vec<_>, Vec<_>) = columns.iter().partition(|(_, name, _)| !name.is_empty());
    let live: Vec<_> = live.iter().map(|(attnum, name, _)| (*attnum, *name)).collect();
    let dropped: Vec<_> = dropped.iter().map(|(attnum, ..)| *attnum).collect();
    let mut catalog = catalog(&live, &dropped);
    catalog.storage.attributes = columns.iter().map(|(attnum, _, by)| (*attnum, *by)).collect();
    catalog
}

#[test]
fn numbers_follow_from_the_ids_of_transactions_where_those_leave_one_way() {
    // a was dropped and b renamed to a since; nothing was known of the table.
    let catalog = written(&[(1, "id", 3), (2, "", 800), (3, "a", 801)]);
    assert_eq!(numbered(&[], catalog, &texts(&["id", "a", "b"])), (vec![1, 2, 3], false));
    let catalog = written(&[(1, "id", 3), (2, "", 600), (3, "a", 801), (4, "c", 802)]);
    assert_eq!(numbered(&[(1, "id"), (3, "b")], catalog, &texts(&["id", "b"])), (vec![1, 3], false));
    // A column that is not published.
    let catalog = written(&[(1, "id", 3), (2, "secret", 4), (3, "a", 5)]);
    assert_eq!(numbered(&[], catalog, &texts(&["id", "a"])), (vec![1, 3], false));
}

#[test]
fn numbers_are_a_guess_where_a_name_was_used_again_or_a_transaction_came_late() {
    let is_guess = |before: &[(i16, &str)], columns: &[(i16, &str, u32)], names: &[&'static str]| {
        numbered(before, written(columns), &texts(names)).1
    };
    let again = [(1, "id", 3), (2, "", 800), (3, "a", 801)];
    assert!(is_guess(&[(1, "id"), (2, "a")], &again, &["id", "a"]), "before or behind the change");
    let own = [(1, "id", 3), (2, "", 700), (3, "", 700), (4, "b", 700)];
    assert!(is_guess(&[(1, "id")], &own, &["id", "x"]), "which of the three");
    let long = [(1, "id", 3), (2, "", 690), (3, "b", 800)];
    assert!(is_guess(&[(1, "id")], &long, &["id", "a"]), "690 may have dropped it behind 700");
    assert!(!is_guess(&[(1, "id"), (3, "a")], &long, &["id", "a"]), "it was gone before");
    // Read before the transaction was visible, or while somebody else held a lock.
    let mut unseen = written(&[(1, "id", 3), (2, "a", 4)]);
    unseen.read_at = Lsn(20);
    assert!(numbered(&[], unseen.clone(), &texts(&["id", "a", "b"])).1);
    assert!(!numbered(&[(1, "id"), (2, "a")], unseen.clone(), &texts(&["id", "a"])).1);
    assert!(!numbered(&[(1, "id")], unseen, &texts(&["id", "a"])).1, "the lock of the next change");
}

#[test]
fn columns_that_are_not_published_and_ones_dropped_long_ago_leave_no_doubt() {
    // `g` is generated; c has another name by now.
    let columns = [(1, "id", 3), (2, "g", 3), (3, "x", 800)];
    let before = [(1, "id"), (3, "c")];
    assert_eq!(numbered(&before, written(&columns), &texts(&["id", "c"])), (vec![1, 3], false));
    let columns = [(1, "id", 3), (2, "", 700), (3, "g", 3), (4, "d", 700)];
    assert_eq!(
        numbered(&[(1, "id"), (2, "b")], written(&columns), &texts(&["id", "d"])),
        (vec![1, 4], false)
    );
    // 3 was dropped last month, and b has another name by now.
    let columns = [(1, "id", 3), (2, "x", 800), (3, "", 600)];
    let of = |horizon| {
        let mut relations = Relations::default();
        relations.begin_behind(horizon);
        relations.begin_with(vec![version(&[(1, "id")], 10)], Lsn(10));
        relations.learn(written(&columns));
        relations.apply(&texts(&["id", "b"]), Place { since: Lsn(20), xid: 700, was_kept: false }).is_guess
    };
    assert!(!of(Some(650)) && of(Some(550)) && of(None));
}

#[test]
fn a_description_that_comes_again_as_it_was_tells_nothing_of_a_change() {
    let mut relations = Relations::default();
    relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
    relations.learn(written(&[(1, "id", 3), (2, "a", 3)]));
    let place = |since| Place { since: Lsn(since), xid: 700, was_kept: false };
    assert!(!relations.apply(&texts(&["id", "a"]), place(20)).is_guess);
    // It passed its name on, in a transaction that was there before 700; the message may be of the one or the other.
    relations.learn(written(&[(1, "id", 3), (2, "", 690), (3, "a", 690)]));
    let met = relations.apply(&texts(&["id", "a"]), place(30));
    assert!(met.is_guess && met.relation.is_guess);
    // The copy tells.
    let copied = Arc::new(Relation { since: Lsn(40), ..catalog(&[(1, "id"), (3, "a")], &[2]).relation() });
    relations.copied(&copied);
    let next = relations.apply_announced(7, place(50)).unwrap();
    assert_eq!(attnums(&next.relation), [(1, "id"), (3, "a")]);
    assert!(!next.is_guess && !next.relation.is_guess);
}

#[test]
fn names_that_change_places_are_told_apart_by_number() {
    let mut relations = Relations::default();
    relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
    met(&mut relations, &texts(&["id", "a", "b"]), at(1));
    relations.learn(catalog(&[(1, "id"), (2, "b"), (3, "a")], &[]));
    let (swapped, _) = met(&mut relations, &texts(&["id", "b", "a"]), at(2));
    assert_eq!(attnums(&swapped), [(1, "id"), (2, "b"), (3, "a")]);
}

#[test]
fn a_column_that_takes_the_name_of_a_dropped_one_is_not_taken_for_it() {
    let mut relations = Relations::default();
    relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
    met(&mut relations, &texts(&["id", "a", "b"]), at(1));
    relations.learn(catalog(&[(1, "id"), (3, "a")], &[2]));
    let (renamed, _) = met(&mut relations, &texts(&["id", "a"]), at(2));
    assert_eq!(attnums(&renamed), [(1, "id"), (3, "a")]);
}

#[test]
fn the_catalog_alone_makes_a_version_of_a_known_table_only() {
    let mut relations = Relations::default();
    let wide = catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]);
    assert!(relations.apply_catalog(&wide, Lsn(1008)).is_none());
    relations.learn(catalog(&[(1, "id"), (2, "a")], &[]));
    met(&mut relations, &texts(&["id", "a"]), at(1));
    assert!(relations.apply_catalog(&catalog(&[(1, "id"), (2, "a")], &[]), Lsn(1008)).is_none());
    let (new, old) = relations.apply_catalog(&wide, Lsn(1008)).unwrap();
    assert_eq!((old.columns.len(), new.columns.len(), new.since), (2, 3, Lsn(1008)));
    relations.learn(wide);
    assert!(
        met(&mut relations, &texts(&["id", "a", "b"]), at(2000)).1.is_none(),
        "the message tells nothing new"
    );
}
