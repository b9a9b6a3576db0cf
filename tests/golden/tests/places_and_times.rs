//! LSNs and times of the golden messages: they differ with every recording, what holds between them does not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use pgoutput::{BeginPrepare, Decoder, Message, Prepare};
use replicator_golden::{Stream, streams};
use replicator_types::Lsn;
use std::collections::BTreeMap;

/// 2025 and 2100, microseconds since 2000-01-01 UTC.
const PLAUSIBLE_TIMES_US: std::ops::Range<i64> = 789_004_800_000_000..3_155_760_000_000_000;
/// When the transactions of scenarios `origin` and `stream_origin` say they were committed:
/// 2026-01-02 03:04:05 UTC.
const ORIGIN_TIME_US: i64 = 820_638_245_000_000;

fn for_each_stream(mut check: impl FnMut(&Stream, Vec<Message<'_>>)) {
    for stream in streams().unwrap() {
        let mut decoder: Decoder = stream.decoder();
        let messages = stream.messages.iter().map(|bytes| decoder.decode(bytes).unwrap()).collect();
        check(&stream, messages);
    }
}

/// Begins and commits alternate in what is not streamed; `check` gets each pair and what is between.
fn for_each_transaction(mut check: impl FnMut(&Stream, &pgoutput::Begin, &[Message<'_>], &pgoutput::Commit)) {
    for_each_stream(|stream, messages| {
        let mut rest = messages.as_slice();
        while let Some(start) = rest.iter().position(|message| matches!(message, Message::Begin(_))) {
            let length = rest[start..].iter().position(|message| matches!(message, Message::Commit(_)));
            let end = start + length.expect("a commit after a begin");
            let (Message::Begin(begin), Message::Commit(commit)) = (&rest[start], &rest[end]) else {
                unreachable!();
            };
            check(stream, begin, &rest[start + 1..end], commit);
            rest = &rest[end + 1..];
        }
    });
}

#[test]
fn a_commit_is_where_its_begin_said_and_ends_later() {
    let mut count = 0;
    for_each_transaction(|stream, begin, _, commit| {
        count += 1;
        assert_eq!(begin.final_lsn, commit.commit_lsn, "{}", stream.scenario);
        assert!(commit.commit_lsn < commit.end_lsn, "{}", stream.scenario);
        assert_eq!(begin.commit_time_us, commit.commit_time_us, "{}", stream.scenario);
        assert_ne!(begin.xid, 0);
    });
    assert!(count > 50, "{count}");
}

#[test]
fn ends_of_transactions_only_go_forward() {
    for_each_stream(|stream, messages| {
        let mut last = Lsn::ZERO;
        for message in messages {
            let (start, end) = match message {
                Message::Commit(m) => (m.commit_lsn, m.end_lsn),
                Message::StreamCommit(m) => (m.commit_lsn, m.end_lsn),
                Message::Prepare(m) | Message::StreamPrepare(m) => (m.prepare_lsn, m.end_lsn),
                Message::CommitPrepared(m) => (m.commit_lsn, m.end_lsn),
                Message::RollbackPrepared(m) => (m.prepare_end_lsn, m.rollback_end_lsn),
                _ => continue,
            };
            assert!(start < end && last < end, "{} {last} {start} {end}", stream.scenario);
            last = end;
        }
    });
}

#[test]
fn the_commit_time_is_the_servers_clock_or_that_of_the_origin() {
    let mut from_origin = 0;
    for_each_transaction(|stream, begin, changes, _| {
        if matches!(changes, [Message::Origin(_), ..]) {
            from_origin += 1;
            assert_eq!(begin.commit_time_us, ORIGIN_TIME_US, "{}", stream.scenario);
        } else {
            assert!(PLAUSIBLE_TIMES_US.contains(&begin.commit_time_us), "{}", stream.scenario);
        }
    });
    for_each_stream(|stream, messages| {
        for message in messages {
            if let Message::StreamCommit(commit) = message {
                let is_origin = stream.scenario == "stream_origin";
                assert_eq!(commit.commit_time_us == ORIGIN_TIME_US, is_origin, "{}", stream.scenario);
                assert!(PLAUSIBLE_TIMES_US.contains(&commit.commit_time_us));
            }
        }
    });
    assert_eq!(from_origin, 6);
}

#[test]
fn a_transactional_message_lies_in_the_wal_before_the_commit() {
    let mut count = 0;
    for_each_transaction(|_, begin, changes, _| {
        for change in changes {
            if let Message::Logical(message) = change {
                count += 1;
                assert!(message.transactional);
                // An end: the commit record may begin right there.
                assert!(Lsn::ZERO < message.lsn && message.lsn <= begin.final_lsn);
            }
        }
    });
    assert_eq!(count, 12);
    for_each_stream(|stream, messages| {
        if stream.scenario == "logical_message" {
            assert!(matches!(&messages[0], Message::Logical(m) if !m.transactional && m.lsn > Lsn::ZERO));
        }
    });
}

#[test]
fn a_prepared_transaction_says_the_same_at_its_begin_its_prepare_and_its_end() {
    let (mut begun, mut committed, mut rolled_back) = (0, 0, 0);
    for_each_stream(|_, messages| {
        let mut prepared: BTreeMap<&str, Prepare<'_>> = BTreeMap::new();
        let mut open: Option<BeginPrepare<'_>> = None;
        for message in &messages {
            match message {
                Message::BeginPrepare(m) => open = Some(*m),
                Message::Prepare(m) | Message::StreamPrepare(m) => {
                    assert!(PLAUSIBLE_TIMES_US.contains(&m.prepare_time_us));
                    if let Some(begin) = open.take() {
                        begun += 1;
                        let BeginPrepare { prepare_lsn, end_lsn, prepare_time_us, xid, gid } = begin;
                        assert_eq!(*m, Prepare { prepare_lsn, end_lsn, prepare_time_us, xid, gid });
                    }
                    prepared.insert(m.gid, *m);
                }
                Message::CommitPrepared(m) => {
                    committed += 1;
                    let prepare = prepared[m.gid];
                    assert_eq!(m.xid, prepare.xid);
                    assert!(m.commit_lsn >= prepare.end_lsn);
                    assert!(m.commit_time_us >= prepare.prepare_time_us);
                }
                Message::RollbackPrepared(m) => {
                    rolled_back += 1;
                    let prepare = prepared[m.gid];
                    assert_eq!(
                        (m.xid, m.prepare_end_lsn, m.prepare_time_us),
                        (prepare.xid, prepare.end_lsn, prepare.prepare_time_us)
                    );
                    assert!(m.rollback_time_us >= m.prepare_time_us);
                }
                _ => {}
            }
        }
    });
    assert_eq!((begun, committed, rolled_back), (10, 10, 10));
}

#[test]
fn an_abort_has_a_place_and_a_time_only_with_parallel_streaming() {
    let mut with_place = 0;
    for_each_stream(|stream, messages| {
        for message in messages {
            if let Message::StreamAbort(abort) = message {
                assert_eq!(abort.abort.is_some(), stream.protocol >= 4);
                if let Some((lsn, time_us)) = abort.abort {
                    with_place += 1;
                    assert!(lsn > Lsn::ZERO && PLAUSIBLE_TIMES_US.contains(&time_us));
                }
            }
        }
    });
    assert_eq!(with_place, 4);
}

#[test]
fn the_type_messages_name_types_of_the_relation_that_follows() {
    for_each_stream(|stream, messages| {
        let mut named = Vec::new();
        for message in &messages {
            match message {
                Message::Type(m) => named.push(m.oid),
                Message::Relation(m) => {
                    let own: Vec<u32> =
                        m.columns.iter().map(|column| column.type_oid).filter(|&oid| oid >= 16384).collect();
                    assert_eq!(own, std::mem::take(&mut named), "{}", stream.scenario);
                }
                _ => {}
            }
        }
    });
}
