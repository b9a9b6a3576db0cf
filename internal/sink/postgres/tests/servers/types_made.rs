//! Types that the target does not know when a table of them comes.

use crate::feed::{Feed, SAME, stream, version};
use crate::{VERSIONS, lane, send, server, sink};
use replicator_harness::{PgVersion, Postgres};
use replicator_sink::{Lane, Sink};
use replicator_types::{Column, ColumnKind, Relation, oid};
use std::sync::Arc;

const MOOD: u32 = 20_000;

fn scalar(base_type_oid: u32, type_modifier: i32) -> Column {
    Column { base_type_oid, type_modifier, kind: ColumnKind::Scalar, ..Column::default() }
}

fn of_kind(base_type_oid: u32, kind: ColumnKind) -> Column {
    Column { base_type_oid, kind, ..Column::default() }
}

fn array(element_oid: u32, element_is_enum: bool) -> ColumnKind {
    ColumnKind::Array { element_oid, element_modifier: -1, element_is_enum }
}

/// A version of table `t`: its columns with their types' names and what is known of these; oids as the source has them.
fn typed(since: u64, columns: &[(i16, &str, &str, Column)]) -> Arc<Relation> {
    let names: Vec<(i16, &str, &str)> =
        columns.iter().map(|(attnum, name, type_sql, _)| (*attnum, *name, *type_sql)).collect();
    let mut relation = version(7, since, "t", &names);
    for (column, (_, _, type_sql, of)) in relation.columns.iter_mut().zip(columns) {
        if of.type_oid == oid::TEXT && !type_sql.contains('.') {
            continue;
        }
        column.type_oid =
            if of.kind == ColumnKind::Enum && !type_sql.contains("felt") { MOOD } else { 20_900 };
        column.base_type_oid = of.base_type_oid;
        column.type_modifier = of.type_modifier;
        column.kind = of.kind.clone();
        column.missing_text.clone_from(&of.missing_text);
    }
    Arc::new(relation)
}

fn column_types(server: &Postgres) -> String {
    let sql = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
                 FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped";
    server.sql("target", &format!("SET search_path = ''; {sql}"))
}

async fn follow(lane: &mut Box<dyn Lane>, feed: &mut Feed, relation: &Arc<Relation>) {
    lane.prepare(Arc::new(feed.schema_batch(relation))).await.unwrap().send().await.unwrap();
}

#[tokio::test]
async fn a_table_of_types_that_the_target_lacks_is_made_with_enums_and_what_stands_in() {
    for version in VERSIONS {
        let server = server(version);
        let relation = typed(
            0,
            &[
                (1, "*id", "bigint", Column::default()),
                (2, "m", "\"Odd, one\".\"the \"\"mood\"", of_kind(MOOD, ColumnKind::Enum)),
                (3, "ms", "\"Odd, one\".\"the \"\"mood\"[]", of_kind(20_001, array(MOOD, true))),
                (4, "felt", "public.felt", of_kind(MOOD, ColumnKind::Enum)),
                (5, "cents", "public.cents", scalar(oid::NUMERIC, (12 << 16 | 2) + 4)),
                (6, "counts", "public.count[]", of_kind(20_002, array(oid::INT4, false))),
                (7, "list", "public.list", of_kind(1007, array(oid::INT4, false))),
                (8, "within", "public.within", of_kind(3904, ColumnKind::Other)),
                (9, "pair", "public.pair", of_kind(20_003, ColumnKind::Other)),
                (10, "pairs", "public.pair[]", of_kind(20_004, ColumnKind::Other)),
            ],
        );
        let items = sink(&server).check(std::slice::from_ref(&relation)).await;
        let told = items.last().unwrap().result.as_ref().unwrap();
        assert!(told.contains("cents will be numeric(12,2)") && told.contains("pair will be text"), "{told}");

        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        let values = [
            Some("1"),
            Some("so, so"),
            Some("{\"so, so\",NULL,glad}"),
            Some("glad"),
            Some("1.50"),
            Some("{1,2}"),
            Some("[0:1]={1,2}"),
            Some("[1,5)"),
            Some("(1,\"a, b\")"),
            Some("{\"(1,x)\"}"),
        ];
        feed.insert(&relation, &values);
        feed.insert(&relation, &[Some("2"), None, None, None, None, None, None, None, None, None]);
        send(&mut lane, &mut feed).await;
        let mut update = values;
        update[0] = Some("2");
        update[1] = Some("new");
        update[8] = SAME;
        feed.update(&relation, &update);
        send(&mut lane, &mut feed).await;
        assert_eq!(
            column_types(&server),
            "id bigint, m \"Odd, one\".\"the \"\"mood\", ms \"Odd, one\".\"the \"\"mood\"[], felt text, \
             cents numeric(12,2), counts integer[], list integer[], within int4range, pair text, pairs text"
        );
        assert_eq!(
            server.sql("target", "TABLE t ORDER BY id"),
            "1|so, so|{\"so, so\",NULL,glad}|glad|1.50|{1,2}|[0:1]={1,2}|[1,5)|(1,\"a, b\")|{\"(1,x)\"}\n\
             2|new|{\"so, so\",NULL,glad}|glad|1.50|{1,2}|[0:1]={1,2}|[1,5)||{\"(1,x)\"}"
        );
    }
}

#[tokio::test]
async fn a_column_of_an_absent_type_is_added_with_what_older_rows_have_in_it() {
    let server = server(PgVersion::V15);
    let with = |of: Column, missing: &str| Column { missing_text: Some(missing.into()), ..of };
    let id = (1, "*id", "bigint", Column::default());
    let first = typed(0, std::slice::from_ref(&id));
    let mood = |missing| (2, "m", "public.mood", with(of_kind(MOOD, ColumnKind::Enum), missing));
    let pair = (3, "p", "public.pair", with(of_kind(20_003, ColumnKind::Other), "(1,x)"));
    let second = typed(2_000, &[id.clone(), mood("glad"), pair.clone()]);
    // A label that is newer than the type, in another column of it.
    let again = (4, "n", "public.mood", with(of_kind(MOOD, ColumnKind::Enum), "gladder"));
    let third = typed(3_000, &[id, mood("glad"), pair, again]);

    let mut lane = lane(&server).await;
    let mut feed = Feed::new();
    feed.insert(&first, &[Some("1")]);
    send(&mut lane, &mut feed).await;
    follow(&mut lane, &mut feed, &second).await;
    feed.insert(&second, &[Some("2"), Some("sad"), Some("(,)")]);
    send(&mut lane, &mut feed).await;
    follow(&mut lane, &mut feed, &third).await;
    assert_eq!(server.sql("target", "TABLE t ORDER BY id"), "1|glad|(1,x)|gladder\n2|sad|(,)|gladder");
    assert_eq!(column_types(&server), "id bigint, m public.mood, p text, n public.mood");
}

#[tokio::test]
async fn a_column_follows_to_an_absent_type_and_from_it_to_another() {
    let server = server(PgVersion::V17);
    let id = (1, "*id", "bigint", Column::default());
    let at = |since, type_sql: &str, of: Column| typed(since, &[id.clone(), (2, "v", type_sql, of)]);
    let text = at(0, "text", Column::default());
    let mood = at(2_000, "public.mood", of_kind(MOOD, ColumnKind::Enum));
    let renamed = at(3_000, "moved.feeling", of_kind(MOOD, ColumnKind::Enum));
    let domain = at(4_000, "public.named", scalar(oid::VARCHAR, 14));
    let pair = at(5_000, "public.pair", of_kind(20_003, ColumnKind::Other));
    let again = at(6_000, "character varying(3)", Column::default());

    let mut lane = lane(&server).await;
    let mut feed = Feed::new();
    feed.insert(&text, &[Some("1"), Some("sad")]);
    feed.insert(&text, &[Some("2"), None]);
    send(&mut lane, &mut feed).await;
    for (relation, type_sql, value) in [
        (&mood, "public.mood", "glad"),
        (&renamed, "moved.feeling", "so so"),
        (&domain, "character varying(10)", "longer"),
        (&pair, "text", "(1,2)"),
    ] {
        follow(&mut lane, &mut feed, relation).await;
        assert_eq!(column_types(&server), format!("id bigint, v {type_sql}"));
        assert_eq!(server.sql("target", "SELECT v FROM t WHERE id = 1"), "sad");
        feed.update(relation, &[Some("2"), Some(value)]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT v FROM t WHERE id = 2"), value);
    }
    feed.update(&pair, &[Some("2"), Some("abc")]);
    send(&mut lane, &mut feed).await;
    follow(&mut lane, &mut feed, &again).await;
    assert_eq!(column_types(&server), "id bigint, v character varying(3)");
    let labels = "SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum
                   WHERE enumtypid = 'moved.feeling'::regtype";
    assert_eq!(server.sql("target", labels), "sad,glad,so so", "in the order of the type that it was");
}

#[tokio::test]
async fn a_type_of_the_same_name_and_of_another_sort_is_not_taken_for_the_sources() {
    let server = server(PgVersion::V17);
    server.sql(
        "target",
        "CREATE TYPE mood AS (a int); CREATE TYPE pair AS ENUM ('x'); CREATE TABLE rows (a int)",
    );
    let relation = typed(
        0,
        &[
            (1, "*id", "bigint", Column::default()),
            (2, "m", "public.mood", of_kind(MOOD, ColumnKind::Enum)),
            (3, "p", "public.pair", of_kind(20_003, ColumnKind::Other)),
            (4, "r", "public.rows", of_kind(20_005, ColumnKind::Other)),
        ],
    );
    let mut lane = lane(&server).await;
    let mut feed = Feed::new();
    feed.insert(&relation, &[Some("1"), Some("sad"), Some("(1,2)"), Some("(5)")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(column_types(&server), "id bigint, m text, p text, r text");
    assert_eq!(server.sql("target", "TABLE t"), "1|sad|(1,2)|(5)");
}

#[tokio::test]
async fn a_role_that_may_not_make_types_gets_texts() {
    let server = server(PgVersion::V15);
    server.sql(
        "target",
        "CREATE ROLE modest LOGIN; GRANT CREATE ON DATABASE target TO modest; GRANT CREATE ON SCHEMA public TO modest;
         CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO modest",
    );
    let sink = crate::sink_at(&server.url_as("modest", "target", "sslmode=disable"), 1);
    let relation = typed(
        0,
        &[(1, "*id", "bigint", Column::default()), (2, "m", "closed.mood", of_kind(MOOD, ColumnKind::Enum))],
    );
    sink.prepare(&stream()).await.unwrap();
    let mut lane = sink.open_lane(0, &stream()).await.unwrap();
    let mut feed = Feed::new();
    feed.insert(&relation, &[Some("1"), Some("sad")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "TABLE t"), "1|sad");
    assert_eq!(column_types(&server), "id bigint, m text");
}
