//! What each scenario of `src/scenarios.rs` comes out as, written by hand. It is the same at every server and
//! under every protocol version but for the one thing that version 4 adds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod transcript;

use replicator_golden::{SERVERS, streams};
use transcript::transcript;

/// Asserts what every recording of the scenario decodes to. `protocols` are those of Postgres 15 and of the
/// later servers.
fn assert_scenario(scenario: &str, protocols: [&[u8]; 2], expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut recorded = Vec::new();
    for stream in streams().unwrap().iter().filter(|stream| stream.scenario == scenario) {
        recorded.push((stream.server, stream.protocol));
        // Only `streaming = parallel` says where and when a transaction was undone.
        let expected: Vec<String> = expected
            .iter()
            .map(|line| match (stream.protocol, line.starts_with("StreamAbort")) {
                (4, true) => format!("{line} at a place and time"),
                _ => (*line).to_owned(),
            })
            .collect();
        assert_eq!(
            transcript(stream),
            expected,
            "{scenario}, Postgres {}, protocol version {}",
            stream.server,
            stream.protocol
        );
    }
    let wanted: Vec<(u32, u8)> = SERVERS
        .iter()
        .flat_map(|&server| {
            protocols[usize::from(server > 15)].iter().map(move |&protocol| (server, protocol))
        })
        .collect();
    assert_eq!(recorded, wanted, "recordings of {scenario}");
}

const FROM_1: [&[u8]; 2] = [&[1, 3], &[1, 4]];
const FROM_2: [&[u8]; 2] = [&[2, 3], &[2, 4]];
const FROM_3: [&[u8]; 2] = [&[3], &[3, 4]];

#[test]
fn text_rows_have_the_values_as_the_server_prints_them() {
    // The Type message of a domain has the domain's oid and its base type's name.
    assert_scenario(
        "types_text",
        FROM_1,
        r#"
        Begin x1
        Type Shop.mood
        Type pg_catalog.int4
        Relation Shop.Größen default *id:20 select:1700(786438) note:1043(24) raw:17 mood:own pieces:own at:1184 tags:1009 ok:16 doc:3802 acl:1033
        Insert Größen '1' '10.50' 'naïve' '\x00ff' 'so "so"' '3' '2026-03-18 12:34:56.789+'..26 '{a,NULL,"b c"}' 't' '{"k": 1}' '=r/postgres'
        Insert Größen '2' null null null null null null null null null null
        Insert Größen '-3' 'NaN' '' '\x' 'calm' '0' 'infinity' '{}' 'f' '[]' null
        Commit
        "#,
    );
}

#[test]
fn binary_rows_fall_back_to_text_where_a_type_has_no_binary_form() {
    assert_scenario(
        "types_binary",
        FROM_1,
        r#"
        Begin x1
        Type Shop.mood
        Type pg_catalog.int4
        Relation Shop.Größen default *id:20 select:1700(786438) note:1043(24) raw:17 mood:own pieces:own at:1184 tags:1009 ok:16 doc:3802 acl:1033
        Insert Größen 0x0000000000000001 0x0002000000000002000a1388 0x6e61c3af7665 0x00ff 0x736f2022736f22 0x00000003 0x0002f04a72bf0608 0x00000001000000010000001900000003000000010000000161ffffffff00000003622063 0x01 0x017b226b223a20317d '=r/postgres'
        Insert Größen 0x0000000000000002 null null null null null null null null null null
        Insert Größen 0xfffffffffffffffd 0x00000000c0000000 0x 0x 0x63616c6d 0x00000000 0x7fffffffffffffff 0x000000000000000000000019 0x00 0x015b5d null
        Commit
        "#,
    );
}

#[test]
fn an_update_has_the_old_key_when_it_changed_and_the_old_row_under_identity_full() {
    assert_scenario(
        "update",
        FROM_1,
        "
        Begin x1
        Relation public.keyed default *id:23 note:25
        Update keyed to '1' 'b'
        Update keyed key '1' null to '2' 'b'
        Relation public.whole full *id:23 *note:25
        Update whole full '1' null to '1' 'b'
        Relation public.indexed index id:23 *code:25
        Update indexed to '2' 'x'
        Update indexed key null 'x' to '2' 'y'
        Commit
        ",
    );
}

#[test]
fn an_unchanged_toast_value_is_only_in_the_old_row_under_identity_full() {
    assert_scenario(
        "unchanged_toast",
        FROM_1,
        "
        Begin x1
        Relation public.keyed default *id:23 n:23 long:25
        Update keyed to '1' '2' unchanged
        Update keyed key '1' null null to '2' '2' unchanged
        Relation public.whole full *id:23 *n:23 *long:25
        Update whole full '1' '1' '012345678901234567890123'..2100 to '1' '2' unchanged
        Update keyed to '2' '2' 'short'
        Commit
        ",
    );
}

#[test]
fn a_delete_has_the_old_key_or_the_old_row() {
    assert_scenario(
        "delete",
        FROM_1,
        "
        Begin x1
        Relation public.keyed default *id:23 *part:25 note:25
        Delete keyed key '1' 'a' null
        Commit
        Begin x2
        Relation public.whole full *id:23 *note:25
        Delete whole full '1' null
        Delete whole full '1' null
        Relation public.indexed index id:23 *code:25
        Delete indexed key null 'x'
        Commit
        ",
    );
}

#[test]
fn a_truncate_lists_every_table_it_reached() {
    // Truncating makes a table's storage anew, so its shape is told again each time.
    assert_scenario(
        "truncate",
        FROM_1,
        "
        Begin x1
        Relation public.alone default *id:23
        Truncate alone
        Commit
        Begin x2
        Relation public.parent default *id:23
        Relation public.child default parent:23
        Truncate parent child cascade
        Commit
        Begin x3
        Relation public.alone default *id:23
        Relation public.child default parent:23
        Truncate alone child restart identity
        Commit
        Begin x4
        Relation public.parent default *id:23
        Relation public.child default parent:23
        Truncate parent child restart identity cascade
        Commit
        ",
    );
}

#[test]
fn a_logical_message_is_in_its_transaction_or_ahead_of_it() {
    assert_scenario(
        "logical_message",
        FROM_1,
        r"
        Message standalone 'ahead' '\x00\xff'
        Begin x1
        Relation public.item default *id:23
        Insert item '1'
        Message transactional 'inside' 'kept'
        Insert item '2'
        Commit
        Message standalone 'ahead' ''
        Begin x2
        Message transactional '' 'a transaction of nothing else'
        Commit
        ",
    );
}

#[test]
fn a_transaction_of_another_origin_says_so_first() {
    assert_scenario(
        "origin",
        FROM_1,
        "
        Begin x1
        Origin paris at A/BC
        Relation public.item default *id:23
        Insert item '1'
        Commit
        Begin x2
        Insert item '2'
        Commit
        ",
    );
}

#[test]
fn a_table_is_told_again_only_after_it_changed() {
    assert_scenario(
        "schema_change",
        FROM_1,
        "
        Begin x1
        Relation public.item default *id:23 note:25
        Insert item '1' 'a'
        Commit
        Begin x2
        Insert item '2' 'b'
        Commit
        Begin x3
        Relation public.item default *id:23 note:25 price:1700(655366)
        Insert item '3' 'c' '2.00'
        Commit
        Begin x4
        Relation public.thing full *id:23 *cost:25
        Insert thing '4' 'x'
        Commit
        Begin x5
        Relation public.thing nothing id:23 cost:25
        Insert thing '5' 'y'
        Commit
        ",
    );
}

#[test]
fn every_change_of_a_streamed_transaction_has_its_id() {
    assert_scenario(
        "stream_commit",
        FROM_2,
        "
        StreamStart x1 first
        x1: Relation public.item default *id:23 note:25
        x1: Insert item '1' 'a'
        x1: Insert item '2' 'b'
        StreamStop
        StreamStart x1
        x1: Update item to '1' 'c'
        x1: Update item key '2' null to '3' 'b'
        x1: Delete item key '1' null
        x1: Message transactional 'inside' 'streamed'
        x1: Type public.mood
        x1: Relation public.other default mood:own
        x1: Truncate other restart identity
        x1: Insert other 'calm'
        StreamStop
        StreamStart x1
        x1: Insert item '4' 'd'
        StreamStop
        StreamCommit x1
        Begin x2
        Insert item '5' 'not streamed'
        Commit
        ",
    );
}

#[test]
fn a_streamed_subtransaction_that_is_rolled_back_is_aborted_alone() {
    assert_scenario(
        "stream_subtransaction_abort",
        FROM_2,
        "
        StreamStart x1 first
        x1: Relation public.item default *id:23 note:25
        x1: Insert item '1' 'kept'
        StreamStop
        StreamStart x1
        x2: Insert item '2' 'undone'
        StreamStop
        StreamAbort x2 of x1
        StreamStart x1
        x3: Relation public.item default *id:23 note:25
        x3: Insert item '3' 'kept'
        StreamStop
        StreamCommit x1
        ",
    );
}

#[test]
fn a_streamed_transaction_that_is_rolled_back_is_aborted_whole() {
    assert_scenario(
        "stream_abort",
        FROM_2,
        "
        StreamStart x1 first
        x1: Relation public.item default *id:23 note:25
        x1: Insert item '1' 'undone'
        StreamStop
        StreamAbort x1 of x1
        Begin x2
        Relation public.item default *id:23 note:25
        Insert item '2' 'kept'
        Commit
        ",
    );
}

#[test]
fn the_origin_of_a_streamed_transaction_is_told_without_a_place() {
    assert_scenario(
        "stream_origin",
        FROM_2,
        "
        StreamStart x1 first
        Origin paris at 0/0
        x1: Relation public.item default *id:23 note:25
        x1: Insert item '1' 'from afar'
        StreamStop
        StreamStart x1
        StreamStop
        StreamCommit x1
        ",
    );
}

#[test]
fn a_prepared_transaction_comes_at_its_prepare_and_ends_later() {
    assert_scenario(
        "prepare",
        FROM_3,
        "
        BeginPrepare x1 'order 1'
        Relation public.item default *id:23
        Insert item '1'
        Prepare x1 'order 1'
        Begin x2
        Insert item '2'
        Commit
        CommitPrepared x1 'order 1'
        BeginPrepare x3 'order 2'
        Insert item '3'
        Prepare x3 'order 2'
        RollbackPrepared x3 'order 2'
        ",
    );
}

#[test]
fn a_streamed_transaction_can_be_prepared() {
    assert_scenario(
        "stream_prepare",
        FROM_3,
        "
        StreamStart x1 first
        x1: Relation public.item default *id:23 note:25
        x1: Insert item '1' 'a'
        StreamStop
        StreamStart x1
        x1: Insert item '2' 'b'
        StreamStop
        StreamPrepare x1 'big 1'
        CommitPrepared x1 'big 1'
        StreamStart x2 first
        x2: Relation public.item default *id:23 note:25
        x2: Insert item '3' 'c'
        StreamStop
        StreamStart x2
        StreamStop
        StreamPrepare x2 'big 2'
        RollbackPrepared x2 'big 2'
        ",
    );
}
