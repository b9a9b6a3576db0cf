//! The walsender's commands.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html> and
//! <https://www.postgresql.org/docs/current/protocol-logical-replication.html>.

use replicator_types::Lsn;

/// What `START_REPLICATION` asks of `pgoutput`. The default is what every version has: protocol 1, text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamOptions {
    /// 1; 2 from Postgres 14 (streaming); 3 from 15 (two-phase); 4 from 16 (parallel streaming).
    pub proto_version: u8,
    /// Values in the types' binary forms, where they have one.
    pub binary: bool,
    /// Whether transactions in progress are sent.
    pub streaming: Streaming,
    /// Whether `pg_logical_emit_message` messages are sent.
    pub messages: bool,
    /// Whether prepared transactions are sent when they are prepared.
    pub two_phase: bool,
    /// Which changes by their origin; Postgres 16.
    pub origin: Option<Origin>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            proto_version: 1,
            binary: false,
            streaming: Streaming::Off,
            messages: false,
            two_phase: false,
            origin: None,
        }
    }
}

/// Sending of transactions in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streaming {
    /// Whole transactions, once committed.
    Off,
    /// In pieces, once they outgrow `logical_decoding_work_mem`.
    On,
    /// The same, with what a parallel receiver needs to know of aborts.
    Parallel,
}

/// Which changes are sent, by their origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Those made at the server itself.
    None,
    /// All.
    Any,
}

/// How a slot is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SlotOptions {
    /// Whether it goes with the connection.
    pub(crate) temporary: bool,
    /// Whether the connection holds a snapshot of the slot's starting point that others can use.
    pub(crate) export_snapshot: bool,
    /// Whether prepared transactions are decoded; Postgres 15 for this syntax.
    pub(crate) two_phase: bool,
    /// Whether standbys keep a copy; Postgres 17.
    pub(crate) failover: bool,
}

/// From this version on the options of `CREATE_REPLICATION_SLOT` stand in parentheses.
const PARENTHESES_SINCE: u32 = 150_000;

pub(crate) fn create_slot(slot: &str, options: SlotOptions, server_version_num: u32) -> String {
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let snapshot = if options.export_snapshot { "export" } else { "nothing" };
    let options = if server_version_num >= PARENTHESES_SINCE {
        let mut list = vec![format!("SNAPSHOT '{snapshot}'")];
        list.extend(options.two_phase.then(|| "TWO_PHASE".to_owned()));
        list.extend(options.failover.then(|| "FAILOVER".to_owned()));
        format!("({})", list.join(", "))
    } else {
        let snapshot = if options.export_snapshot { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        format!("{snapshot}{}", if options.two_phase { " TWO_PHASE" } else { "" })
    };
    format!("CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput {options}", quote_identifier(slot))
}

pub(crate) fn start(slot: &str, start: Lsn, publications: &[&str], options: &StreamOptions) -> String {
    // Names inside the list are identifiers, and the list is a literal.
    let publications: Vec<String> = publications.iter().map(|name| quote_identifier(name)).collect();
    let mut list = vec![
        format!("proto_version '{}'", options.proto_version),
        format!("publication_names {}", quote_literal(&publications.join(","))),
    ];
    let mut add = |wanted: bool, option: &str| {
        if wanted {
            list.push(option.to_owned());
        }
    };
    add(options.binary, "binary 'true'");
    add(options.streaming == Streaming::On, "streaming 'on'");
    add(options.streaming == Streaming::Parallel, "streaming 'parallel'");
    add(options.messages, "messages 'true'");
    add(options.two_phase, "two_phase 'on'");
    add(options.origin == Some(Origin::None), "origin 'none'");
    add(options.origin == Some(Origin::Any), "origin 'any'");
    format!("START_REPLICATION SLOT {} LOGICAL {start} ({})", quote_identifier(slot), list.join(", "))
}

/// `name` in double quotes, as SQL and the walsender's commands take it.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` in single quotes. The walsender's commands know no escapes but the doubled quote; in SQL this
/// holds with `standard_conforming_strings`, the default that nobody changes.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_made_in_the_syntax_of_the_server() {
        let plain = SlotOptions::default();
        assert_eq!(
            create_slot("a", plain, 150_000),
            "CREATE_REPLICATION_SLOT \"a\" LOGICAL pgoutput (SNAPSHOT 'nothing')"
        );
        assert_eq!(
            create_slot("a", plain, 140_009),
            "CREATE_REPLICATION_SLOT \"a\" LOGICAL pgoutput NOEXPORT_SNAPSHOT"
        );
        let all = SlotOptions { temporary: true, export_snapshot: true, two_phase: true, failover: true };
        assert_eq!(
            create_slot("a", all, 170_000),
            "CREATE_REPLICATION_SLOT \"a\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export', TWO_PHASE, FAILOVER)"
        );
    }

    #[test]
    fn names_are_quoted_twice_over_in_the_list_of_publications() {
        let command = start("s", Lsn(0x1_0000_0002), &["a\"b", "it's, one"], &StreamOptions::default());
        assert_eq!(
            command,
            "START_REPLICATION SLOT \"s\" LOGICAL 1/2 \
             (proto_version '1', publication_names '\"a\"\"b\",\"it''s, one\"')"
        );
    }

    #[test]
    fn every_option_reaches_the_command() {
        let options = StreamOptions {
            proto_version: 4,
            binary: true,
            streaming: Streaming::Parallel,
            messages: true,
            two_phase: true,
            origin: Some(Origin::None),
        };
        let command = start("s", Lsn(0), &["p"], &options);
        assert!(
            command.ends_with(
                "binary 'true', streaming 'parallel', messages 'true', two_phase 'on', origin 'none')"
            ),
            "{command}"
        );
    }
}
