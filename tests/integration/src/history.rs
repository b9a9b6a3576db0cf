//! A history in ClickHouse beside the three sinks, compared with the archive.

use crate::World;
use replicator_harness::Config;

/// The name of the history's database.
pub fn history_database(world: &World) -> String {
    format!("{}_log", world.clickhouse.database())
}

/// The configuration with a history, the sink `log`.
#[must_use]
pub fn with_history(config: Config, world: &World) -> Config {
    config
        .clickhouse("log", &world.clickhouse)
        .set_sink("log", "database", history_database(world))
        .set_sink("log", "mode", "history")
        .set_sink("log", "batch.interval_ms", 200)
}

/// Changes of the stream in the history of a table, by position, as the archive's events have it.
pub fn changes_in_history(world: &World, table: &str) -> Vec<String> {
    let found = world.clickhouse.query(&format!(
        "SELECT concat(lower(leftPad(hex(toUInt64(bitShiftRight(_version, 64))), 16, '0')), '-', \
         toString(toUInt64(bitAnd(_version, toUInt128('18446744073709551615')))), ' ', toString(_op), ' ', toString(id)) \
         AS change FROM {}.{table} WHERE _op NOT IN ('read', 'truncate') ORDER BY change FORMAT TSVRaw",
        history_database(world)
    ));
    found.lines().map(str::to_owned).collect()
}

/// Whether the history has each change of a table that the archive has, once.
///
/// # Errors
/// What is absent, and what should not be there.
pub fn history_is_as_archive(world: &World, table: &str) -> Result<(), String> {
    let (found, expected) = (changes_in_history(world, table), changes_in_archive(world, table));
    let absent: Vec<_> = expected.iter().filter(|change| !found.contains(change)).collect();
    let extra: Vec<_> = found.iter().filter(|change| !expected.contains(change)).collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!("{} of {}: lacks {absent:?}, should not have {extra:?}", found.len(), expected.len()))
    }
}

/// The same of the archive.
fn changes_in_archive(world: &World, table: &str) -> Vec<String> {
    let change = |event: serde_json::Value| {
        let lsn = event["lsn"].as_str().unwrap_or_default();
        let (high, low) = lsn.split_once('/').unwrap_or_else(|| panic!("an event without lsn: {event}"));
        let row = if event["op"] == "delete" { &event["before"] } else { &event["after"] };
        format!(
            "{high:0>8}{low:0>8}-{} {} {}",
            event["ordinal"],
            event["op"].as_str().unwrap_or_default(),
            row["id"]
        )
        .to_lowercase()
    };
    let events = world.archive().into_iter().map(|described| described.event());
    let mut changes: Vec<String> = events
        .filter(|event| {
            event["table"] == table
                && !["read", "truncate"].contains(&event["op"].as_str().unwrap_or_default())
        })
        .map(change)
        .collect();
    changes.sort();
    changes
}
