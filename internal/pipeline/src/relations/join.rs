//! A Relation message joined with what the catalog knows of its columns.

use super::Place;
use super::numbers::Numbers;
use pgoutput::{ColumnMessage, RelationMessage};
use replicator_types::{
    Column, ColumnKind, Relation, ReplicaIdentity, TableCatalog, built_in_type, indexes_of_key,
    key_text_is_identity,
};

/// Whether the message could have come from the table at that version, by all that a message tells.
pub(super) fn describes(version: &Relation, message: &RelationMessage<'_>) -> bool {
    let full = message.replica_identity == ReplicaIdentity::Full;
    version.oid == message.oid
        && version.schema == message.schema
        && version.name == message.name
        && version.replica_identity == message.replica_identity
        && version.columns.len() == message.columns.len()
        && version.columns.iter().zip(&message.columns).all(|(known, column)| {
            // A domain's modifier is that of its base type here.
            let is_domain = known.type_oid != known.base_type_oid;
            known.name == column.name
                && known.type_oid == column.type_oid
                && (is_domain || known.type_modifier == column.type_modifier)
                && (full || known.is_key == column.in_identity)
        })
}

/// The message is the truth for its place in the stream; the catalog may be older or newer. A column takes
/// from the catalog only what fits the message's type.
pub(super) fn join(
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    before: Option<&Relation>,
    numbers: Numbers,
    place: Place,
) -> Relation {
    let full = message.replica_identity == ReplicaIdentity::Full;
    let lacks_of_key =
        catalog.is_some_and(|catalog| catalog.lacks_of_key(|attnum| numbers.attnums.contains(&attnum)));
    let columns: Vec<Column> = message
        .columns
        .iter()
        .zip(numbers.attnums)
        .map(|(column, attnum)| {
            let is_it =
                |known: &&Column| known.attnum == attnum && attnum != 0 && known.type_oid == column.type_oid;
            // What the catalog no longer has is as it was.
            let known = catalog
                .and_then(|catalog| catalog.columns.iter().find(is_it))
                .or_else(|| before.and_then(|before| before.columns.iter().find(is_it)));
            // Under FULL every column is marked on the wire; what tells rows apart is the primary key.
            let is_key = if full {
                let name = known.map_or(column.name, |known| &known.name);
                catalog.is_some_and(|catalog| catalog.primary_key.iter().any(|key| key == name))
            } else {
                column.in_identity
            } && !lacks_of_key;
            match known {
                Some(known) => Column { is_key, name: column.name.to_owned(), ..known.clone() },
                None => Column { attnum, ..unknown_column(column, is_key, catalog) },
            }
        })
        .collect();
    let nondeterministic = catalog.map_or(&[][..], |catalog| &catalog.nondeterministic);
    Relation {
        oid: message.oid,
        version: 0,
        since: place.since,
        schema: message.schema.to_owned(),
        name: message.name.to_owned(),
        replica_identity: message.replica_identity,
        key: indexes_of_key(&columns),
        key_text_is_identity: key_text_is_identity(&columns, nondeterministic),
        columns,
        is_guess: numbers.is_guess,
    }
}

/// A column that the catalog no longer has: dropped or altered since. Its values are still in the stream, perhaps in binary
/// form: what the source takes for understood by the type alone has to be so here.
fn unknown_column(column: &ColumnMessage<'_>, is_key: bool, catalog: Option<&TableCatalog>) -> Column {
    let unknown = Column {
        name: column.name.to_owned(),
        attnum: 0,
        type_oid: column.type_oid,
        base_type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        kind: ColumnKind::Other,
        type_sql: "text".to_owned(),
        not_null: is_key,
        is_key,
        ..Column::default()
    };
    if let Some(type_sql) = built_in_type(column.type_oid, column.type_modifier) {
        return Column { kind: ColumnKind::Scalar, type_sql, ..unknown };
    }
    // Another column of that type tells what it is, but not this one's length or precision.
    let twin = catalog.and_then(|catalog| catalog.column_of_type(column.type_oid));
    let Some(twin) = twin.filter(|twin| twin.kind != ColumnKind::Other) else { return unknown };
    let is_domain = twin.base_type_oid != twin.type_oid;
    let type_modifier = if is_domain { twin.type_modifier } else { column.type_modifier };
    let is_alike = twin.type_modifier == type_modifier;
    let kind = match twin.kind.clone() {
        ColumnKind::Array { element_oid, element_modifier, element_is_enum } => {
            let element_modifier = if is_alike { element_modifier } else { type_modifier };
            ColumnKind::Array { element_oid, element_modifier, element_is_enum }
        }
        kind => kind,
    };
    let type_sql = if is_alike { twin.type_sql.clone() } else { unknown.type_sql.clone() };
    Column { base_type_oid: twin.base_type_oid, type_modifier, kind, type_sql, ..unknown }
}
