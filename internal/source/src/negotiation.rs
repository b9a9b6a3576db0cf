//! What a stream is asked for: the configuration, as far as this server can do it.
//!
//! ```text
//!   setting               protocol   Postgres
//!   –                         1         14
//!   streaming = on            2         14
//!   two_phase                 3         15
//!   streaming = parallel      4         16
//!   origin = none             –         16
//! ```
//!
//! `binary = auto` is binary form, where every published column's is understood: with rows of 60 columns the source then
//! needs a fifth less processor time, and a Postgres or ClickHouse sink 15 to 40 % less, with rows of six columns all of
//! them 5 to 10 % less; an archive, which has to make texts, needs as much as before or 8 % more (docs/benchmarks.md).
//! A stream in binary form that comes upon a column whose values are only understood as text is broken off before they
//! are handed on, and begun again in text from where the sinks are.
//!
//! `streaming = auto` is off: a transaction is handed on when it has committed, whoever keeps it until then.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-logical-replication.html>.

use crate::server::Server;
use crate::{Origin, SourceError, StreamOptions, Streaming};
use pgvalue::Form;
use replicator_config::{BinaryValues, OriginFilter, SourceConfig, StreamingMode};
use replicator_types::{Column, TableCatalog, built_in_type};

const TWO_PHASE_SINCE: u32 = 150_000;
const PARALLEL_SINCE: u32 = 160_000;
const ORIGIN_SINCE: u32 = 160_000;
const FAILOVER_SINCE: u32 = 170_000;

/// Whether the server has all that is configured.
///
/// # Errors
/// It is too old for something; says what to do.
pub(crate) fn verify_server(config: &SourceConfig, server: &Server) -> Result<(), SourceError> {
    let too_old = |setting: &str, since: u32, remedy: &str| {
        Err(SourceError::halt(format!(
            "{setting} needs PostgreSQL {}, and the source is {}: {remedy}, or upgrade it",
            since / 10_000,
            server.version
        )))
    };
    if config.two_phase && server.version_num < TWO_PHASE_SINCE {
        return too_old("source.two_phase = true", TWO_PHASE_SINCE, "leave it out");
    }
    if config.streaming == StreamingMode::Parallel && server.version_num < PARALLEL_SINCE {
        return too_old("source.streaming = \"parallel\"", PARALLEL_SINCE, "set it to \"on\" or \"auto\"");
    }
    if config.origin == OriginFilter::None && server.version_num < ORIGIN_SINCE {
        let remedy = "leave it out, and keep tables that other replications write to out of the publication";
        return too_old("source.origin = \"none\"", ORIGIN_SINCE, remedy);
    }
    Ok(())
}

/// Whether a slot that is made here is to be kept on standbys as well. Only a primary can have one, and, as of 17.5, none
/// that decodes prepared transactions.
pub(crate) fn slot_failover(config: &SourceConfig, server: &Server) -> bool {
    config.failover && !config.two_phase && !server.in_recovery && server.version_num >= FAILOVER_SINCE
}

/// Whether the slot that is there can do what is configured.
///
/// # Errors
/// It was made without two-phase decoding, which is asked for.
pub(crate) fn verify_slot_two_phase(config: &SourceConfig, slot_has: bool) -> Result<(), SourceError> {
    if !config.two_phase || slot_has {
        return Ok(());
    }
    let slot = &config.slot;
    Err(SourceError::halt(format!(
        "slot {slot} was made without two-phase decoding, and source.two_phase = true asks for it: set it to false, or \
         drop the slot (`SELECT pg_drop_replication_slot('{slot}')`), have every table copied anew (`replicator resync \
         --all`), and start again"
    )))
}

/// The options of a stream, from a server that has what is configured. A slot that decodes prepared transactions
/// does so whatever is configured.
pub(crate) fn stream_options(
    config: &SourceConfig,
    slot_two_phase: bool,
    tables: &[TableCatalog],
) -> StreamOptions {
    let streaming = match config.streaming {
        StreamingMode::Auto | StreamingMode::Off => Streaming::Off,
        StreamingMode::On => Streaming::On,
        StreamingMode::Parallel => Streaming::Parallel,
    };
    StreamOptions {
        proto_version: match (streaming, slot_two_phase) {
            (Streaming::Parallel, _) => 4,
            (_, true) => 3,
            (Streaming::On, false) => 2,
            (Streaming::Off, false) => 1,
        },
        binary: config.binary != BinaryValues::Off && text_only_column(tables).is_none(),
        streaming,
        // Requests to the replicator itself come as messages; whether sinks get others is the pipeline's to decide.
        messages: true,
        two_phase: slot_two_phase,
        origin: (config.origin == OriginFilter::None).then_some(Origin::None),
    }
}

/// A column whose values have to come as text, and so everything has.
pub(crate) fn text_only_column(tables: &[TableCatalog]) -> Option<(&TableCatalog, &Column)> {
    tables.iter().find_map(|table| {
        let column = table.columns.iter().find(|column| pgvalue::form(column) == Form::TextOnly)?;
        Some((table, column))
    })
}

/// A type among `column_types`, the types of columns in Relation messages, each with its table, whose values the stream has
/// to send as text. `tables` are the catalog's entries for these tables. A column that its table does not have any more is
/// known by its type alone: by that of another column of the table, or if it is built in.
pub(crate) fn text_only_type(column_types: &[(u32, u32)], tables: &[TableCatalog]) -> Option<u32> {
    let is_text_only = |(oid, type_oid): &(u32, u32)| {
        let table = tables.iter().find(|table| table.oid == *oid);
        match table.and_then(|table| table.column_of_type(*type_oid)) {
            Some(column) => pgvalue::form(column) == Form::TextOnly,
            None => built_in_type(*type_oid, -1).is_none(),
        }
    };
    column_types.iter().find(|column| is_text_only(column)).map(|(_, type_oid)| *type_oid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_pgconn::ErrorKind;
    use replicator_types::{ColumnKind, ReplicaIdentity, oid};

    fn server(version_num: u32) -> Server {
        Server {
            version: format!("{}.1", version_num / 10_000),
            version_num,
            wal_level: "logical".into(),
            in_recovery: false,
            is_superuser: false,
            slots_max: 1,
            slots_used: 0,
            wal_senders_max: 1,
            wal_senders_used: 0,
            wal_sender_timeout_ms: 60_000,
        }
    }

    fn config(change: impl FnOnce(&mut SourceConfig)) -> SourceConfig {
        let mut config = SourceConfig {
            url: replicator_config::Secret::default(),
            password: replicator_config::Secret::default(),
            password_file: None,
            slot: "s".into(),
            publication: "p".into(),
            create: true,
            tables: replicator_config::TablePatterns::default(),
            snapshot: replicator_config::Snapshot::Initial,
            binary: BinaryValues::Auto,
            streaming: StreamingMode::Auto,
            two_phase: false,
            failover: true,
            messages: false,
            origin: OriginFilter::Any,
            heartbeat_interval_ms: 0,
            catalog_interval_ms: 0,
            status_interval_ms: 10_000,
            connect_timeout_ms: 10_000,
        };
        change(&mut config);
        config
    }

    fn table(kind: ColumnKind) -> TableCatalog {
        let column = Column { name: "c".into(), base_type_oid: oid::INT4, kind, ..Column::default() };
        TableCatalog {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![column],
            primary_key: Vec::new(),
            identity_index: Vec::new(),
            read_at: replicator_types::Lsn::ZERO,
            dropped: Vec::new(),
            nondeterministic: Vec::new(),
            storage: replicator_types::Storage::default(),
            generated: Vec::new(),
            generated_key: Vec::new(),
        }
    }

    fn chosen(
        version_num: u32,
        slot_two_phase: bool,
        change: impl FnOnce(&mut SourceConfig),
    ) -> StreamOptions {
        let config = config(change);
        verify_server(&config, &server(version_num)).unwrap();
        stream_options(&config, slot_two_phase, &[])
    }

    #[test]
    fn without_a_word_every_server_is_asked_for_what_all_have() {
        for version in [140_000, 150_000, 180_000] {
            let what_all_have = StreamOptions { messages: true, binary: true, ..StreamOptions::default() };
            assert_eq!(chosen(version, false, |_| {}), what_all_have);
        }
    }

    #[test]
    fn the_protocol_is_the_oldest_that_has_what_is_asked_for() {
        let streaming = |mode| move |config: &mut SourceConfig| config.streaming = mode;
        assert_eq!(chosen(140_000, false, streaming(StreamingMode::On)).proto_version, 2);
        assert_eq!(chosen(160_000, false, streaming(StreamingMode::Parallel)).proto_version, 4);
        assert_eq!(chosen(150_000, true, streaming(StreamingMode::On)).proto_version, 3);
        let kept = chosen(150_000, true, |_| {});
        assert!(kept.two_phase && kept.proto_version == 3, "the slot does it whatever is configured");
    }

    #[test]
    fn what_the_server_is_too_old_for_is_an_error_with_the_remedy() {
        let refused = |version, change: fn(&mut SourceConfig)| {
            let error = verify_server(&config(change), &server(version)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Halt);
            error.to_string()
        };
        assert!(refused(140_000, |config| config.two_phase = true).contains("PostgreSQL 15"));
        assert!(refused(150_000, |config| config.streaming = StreamingMode::Parallel).contains("\"on\""));
        assert!(refused(150_000, |config| config.origin = OriginFilter::None).contains("origin"));
        let error = verify_slot_two_phase(&config(|config| config.two_phase = true), false).unwrap_err();
        assert!(error.to_string().contains("pg_drop_replication_slot('s')"));
    }

    #[test]
    fn a_type_that_is_only_understood_as_text_is_found_in_relation_messages() {
        let mut known = table(ColumnKind::Scalar);
        known.columns.push(Column {
            type_oid: 20_000,
            base_type_oid: 20_000,
            kind: ColumnKind::Enum,
            ..Column::default()
        });
        let tables = [known, TableCatalog { oid: 2, ..table(ColumnKind::Scalar) }];
        let found = |columns: &[(u32, u32)]| text_only_type(columns, &tables);
        assert_eq!(found(&[(1, oid::INT4), (1, oid::TEXT), (1, 20_000)]), None);
        assert_eq!(found(&[(1, oid::INT4), (1, 20_001)]), Some(20_001), "gone from the catalog");
        assert_eq!(found(&[(2, 20_000)]), Some(20_000), "another table has it");
        assert_eq!(found(&[(3, oid::TEXT), (3, oid::INT4)]), None);
        // Nothing but its oid is left, and that has no name here.
        assert_eq!(found(&[(1, INTERVAL)]), Some(INTERVAL));
    }

    const INTERVAL: u32 = 1186;

    #[test]
    fn every_built_in_type_that_is_known_by_its_oid_has_a_binary_form_that_is_understood() {
        let known: Vec<u32> = (1..10_000).filter(|oid| built_in_type(*oid, -1).is_some()).collect();
        assert!(known.len() > 25, "{known:?}");
        for type_oid in known {
            let column = Column { type_oid, base_type_oid: type_oid, ..Column::default() };
            assert_ne!(pgvalue::form(&column), Form::TextOnly, "{type_oid}");
        }
    }

    #[test]
    fn one_column_that_is_only_understood_as_text_makes_all_of_them_text() {
        for (word, can_be_binary) in
            [(BinaryValues::Auto, true), (BinaryValues::On, true), (BinaryValues::Off, false)]
        {
            let config = config(|config| config.binary = word);
            let binary = |tables: &[TableCatalog]| stream_options(&config, false, tables).binary;
            assert_eq!(binary(&[table(ColumnKind::Scalar)]), can_be_binary);
            assert!(!binary(&[table(ColumnKind::Scalar), table(ColumnKind::Other)]));
        }
    }
}
