//! The properties can fail: each of these bugs, put into the simulation, is found by one of them.

use replicator_sim::{Plan, Sabotage, run_many};

/// Whether some schedule of the first finds the bug, by a promise that says so.
#[track_caller]
fn is_found(sabotage: Sabotage, promise: &str) {
    is_found_in(600, sabotage, promise);
}

#[track_caller]
fn is_found_in(seeds: u64, sabotage: Sabotage, promise: &str) {
    let report = run_many(0..seeds, 2, |seed| Plan::of(seed).with_sabotage(sabotage));
    assert!(!report.violations.is_empty(), "{sabotage:?} is not found");
    let texts: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains(promise)), "{sabotage:?} is found only as {texts:#?}");
}

#[test]
fn acknowledging_what_was_received_is_found() {
    is_found(Sabotage::AcknowledgeReceived, "is acknowledged, and");
}

#[test]
fn acknowledging_what_was_handed_out_is_found() {
    is_found(Sabotage::AcknowledgePassed, "is acknowledged, and");
}

#[test]
fn acknowledging_a_keepalive_before_the_data_it_follows_is_found() {
    is_found(Sabotage::AcknowledgeKeepalive, "is acknowledged, and");
}

#[test]
fn a_sink_that_says_durable_too_early_is_found() {
    is_found(Sabotage::DurableTooEarly, "is acknowledged, and");
}

#[test]
fn a_fragment_that_is_dropped_is_found() {
    is_found(Sabotage::DropFragment, "is acknowledged, and");
}

#[test]
fn a_write_that_is_not_sent_again_is_found() {
    is_found(Sabotage::ForgetRetry, "is acknowledged, and");
}

#[test]
fn batches_of_a_lane_that_change_places_are_found() {
    is_found(Sabotage::Reorder, "behind it");
}

#[test]
fn a_fence_that_is_skipped_is_found() {
    is_found(Sabotage::SkipFence, "and gets the change at");
}

#[test]
fn a_replay_that_is_left_out_is_found() {
    is_found(Sabotage::ForgetReplay, "has not Effect");
}

#[test]
fn a_reconnect_that_the_pipeline_is_not_told_of_is_found() {
    is_found(Sabotage::ForgetReconnect, "protocol");
}

#[test]
fn a_reader_that_does_not_wait_for_the_budget_is_found() {
    is_found(Sabotage::IgnoreBudget, "bytes were held");
}

#[test]
fn changes_that_follow_before_the_copied_rows_are_found() {
    is_found(Sabotage::ReleaseTooEarly, "has not Effect");
}

#[test]
fn a_note_that_says_more_than_the_sinks_have_is_found() {
    is_found(Sabotage::NoteTooEarly, "has not Effect");
}

#[test]
fn a_subtransaction_that_stays_though_it_was_rolled_back_is_found() {
    is_found(Sabotage::ForgetAbort, "the log has");
}

#[test]
fn a_held_table_whose_changes_pass_for_the_streams_is_found() {
    is_found(Sabotage::CatchUpAsStream, "");
}

#[test]
fn acknowledging_what_waits_for_an_alteration_is_found() {
    is_found(Sabotage::AcknowledgeAltering, "is acknowledged, and");
}

#[test]
fn forgetting_the_versions_of_tables_is_found() {
    is_found(Sabotage::ForgetVersions, "");
}

#[test]
fn changes_that_follow_before_the_alteration_are_found() {
    is_found(Sabotage::ReleaseUnaltered, "comes before the column");
}

#[test]
fn a_table_that_goes_back_to_the_stream_before_what_lanes_have_got_past_is_found() {
    is_found_in(6_000, Sabotage::JoinEarly, "");
}

#[test]
fn forgetting_that_a_table_was_apart_is_found() {
    is_found_in(6_000, Sabotage::ForgetApart, "");
}
