//! Strategies for messages with any content. What they borrow is leaked: a message is `'static`, and a test
//! process is short.

use crate::wire::encode_tuple;
use pgoutput::{
    Begin, BeginPrepare, ColumnMessage, Commit, CommitPrepared, Delete, Insert, LogicalMessage, Message, Old,
    Origin, Prepare, RelationMessage, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate,
    TypeMessage, Update,
};
use proptest::collection::vec;
use proptest::prelude::*;
use replicator_types::{Lsn, ReplicaIdentity, Tuple, Value};

/// A connection's messages: transactions' messages in any order, with stream blocks between. The flag is
/// whether streaming is parallel.
pub(crate) fn any_stream() -> impl Strategy<Value = (bool, Vec<Message<'static>>)> {
    any::<bool>().prop_flat_map(|parallel| {
        let part = prop_oneof![
            prop_oneof![change(false), transaction(parallel), origin()].prop_map(|message| vec![message]),
            (any::<u32>(), any::<bool>(), vec(prop_oneof![change(true), origin()], 0..4)).prop_map(
                |(xid, first_segment, mut block)| {
                    block.insert(0, Message::StreamStart(StreamStart { xid, first_segment }));
                    block.push(Message::StreamStop);
                    block
                }
            ),
        ];
        vec(part, 1..12).prop_map(move |parts| (parallel, parts.concat()))
    })
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn text() -> impl Strategy<Value = &'static str> {
    "[^\0]{0,12}".prop_map(|text| &*text.leak())
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("pg_catalog"), "[^\0]{1,12}".prop_map(|name| &*name.leak())]
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| &*bytes.leak())
}

fn value() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        bytes().prop_map(Value::Text),
        bytes().prop_map(Value::Binary),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple<'static>> {
    vec(value(), 0..8).prop_map(|values| {
        let tuple = Tuple::from_checked(encode_tuple(&values).leak());
        assert_eq!(tuple.values().collect::<Vec<_>>(), values);
        tuple
    })
}

fn old() -> impl Strategy<Value = Old<'static>> {
    prop_oneof![tuple().prop_map(Old::Key), tuple().prop_map(Old::Full)]
}

fn origin() -> impl Strategy<Value = Message<'static>> {
    (lsn(), text()).prop_map(|(commit_lsn, name)| Message::Origin(Origin { commit_lsn, name }))
}

/// What may come within a stream block, and has a transaction id there.
fn change(in_stream: bool) -> BoxedStrategy<Message<'static>> {
    let xid = move || any::<u32>().prop_map(move |xid| in_stream.then_some(xid));
    prop_oneof![
        (xid(), any::<u32>(), tuple()).prop_map(|(xid, relation_oid, new)| Message::Insert(Insert {
            xid,
            relation_oid,
            new
        })),
        (xid(), any::<u32>(), proptest::option::of(old()), tuple()).prop_map(
            |(xid, relation_oid, old, new)| Message::Update(Update { xid, relation_oid, old, new })
        ),
        (xid(), any::<u32>(), old()).prop_map(|(xid, relation_oid, old)| Message::Delete(Delete {
            xid,
            relation_oid,
            old
        })),
        (xid(), any::<bool>(), any::<bool>(), vec(any::<u32>(), 0..5)).prop_map(
            |(xid, cascade, restart_identity, relation_oids)| {
                Message::Truncate(Truncate { xid, cascade, restart_identity, relation_oids })
            }
        ),
        (xid(), any::<bool>(), lsn(), text(), bytes()).prop_map(
            |(xid, transactional, lsn, prefix, content)| {
                Message::Logical(LogicalMessage { xid, transactional, lsn, prefix, content })
            }
        ),
        (xid(), any::<u32>(), name(), text(), identity(), vec(column(), 0..6)).prop_map(
            |(xid, oid, schema, name, replica_identity, columns)| {
                Message::Relation(RelationMessage { xid, oid, schema, name, replica_identity, columns })
            }
        ),
        (xid(), any::<u32>(), name(), text())
            .prop_map(|(xid, oid, schema, name)| Message::Type(TypeMessage { xid, oid, schema, name })),
    ]
    .boxed()
}

fn identity() -> impl Strategy<Value = ReplicaIdentity> {
    prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ]
}

fn column() -> impl Strategy<Value = ColumnMessage<'static>> {
    (any::<bool>(), text(), any::<u32>(), any::<i32>()).prop_map(
        |(in_identity, name, type_oid, type_modifier)| ColumnMessage {
            in_identity,
            name,
            type_oid,
            type_modifier,
        },
    )
}

fn prepare() -> impl Strategy<Value = Prepare<'static>> {
    (lsn(), lsn(), any::<i64>(), any::<u32>(), text()).prop_map(
        |(prepare_lsn, end_lsn, prepare_time_us, xid, gid)| Prepare {
            prepare_lsn,
            end_lsn,
            prepare_time_us,
            xid,
            gid,
        },
    )
}

/// Beginnings and ends, which stand outside of stream blocks.
fn transaction(parallel: bool) -> BoxedStrategy<Message<'static>> {
    prop_oneof![
        (lsn(), any::<i64>(), any::<u32>()).prop_map(|(final_lsn, commit_time_us, xid)| Message::Begin(
            Begin { final_lsn, commit_time_us, xid }
        )),
        (lsn(), lsn(), any::<i64>()).prop_map(|(commit_lsn, end_lsn, commit_time_us)| Message::Commit(
            Commit { commit_lsn, end_lsn, commit_time_us }
        )),
        (any::<u32>(), lsn(), lsn(), any::<i64>()).prop_map(|(xid, commit_lsn, end_lsn, commit_time_us)| {
            Message::StreamCommit(StreamCommit { xid, commit_lsn, end_lsn, commit_time_us })
        }),
        (any::<u32>(), any::<u32>(), lsn(), any::<i64>()).prop_map(move |(xid, subxid, lsn, time_us)| {
            let abort = parallel.then_some((lsn, time_us));
            Message::StreamAbort(StreamAbort { xid, subxid, abort })
        }),
        prepare().prop_map(|Prepare { prepare_lsn, end_lsn, prepare_time_us, xid, gid }| {
            Message::BeginPrepare(BeginPrepare { prepare_lsn, end_lsn, prepare_time_us, xid, gid })
        }),
        prepare().prop_map(Message::Prepare),
        prepare().prop_map(Message::StreamPrepare),
        prepare().prop_map(|Prepare { prepare_lsn, end_lsn, prepare_time_us, xid, gid }| {
            Message::CommitPrepared(CommitPrepared {
                commit_lsn: prepare_lsn,
                end_lsn,
                commit_time_us: prepare_time_us,
                xid,
                gid,
            })
        }),
        (prepare(), any::<i64>()).prop_map(|(prepare, rollback_time_us)| {
            Message::RollbackPrepared(RollbackPrepared {
                prepare_end_lsn: prepare.prepare_lsn,
                rollback_end_lsn: prepare.end_lsn,
                prepare_time_us: prepare.prepare_time_us,
                rollback_time_us,
                xid: prepare.xid,
                gid: prepare.gid,
            })
        }),
    ]
    .boxed()
}
