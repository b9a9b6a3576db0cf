//! A Relation message laid along attribute numbers, which it does not tell.

use super::Place;
use pgoutput::{ColumnMessage, RelationMessage};
use replicator_types::{
    Column, ColumnKind, Relation, ReplicaIdentity, TableCatalog, indexes_of_key, key_text_is_identity, oid,
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

/// Whether a transaction older than `xid` has dropped one of the version's columns: then another column has its name in
/// the messages of `xid`.
///
/// A transaction that drops a column waits for those that have written to the table, and those that come wait for it.
/// So ids tell the order but where a transaction had its id long before it came to the table, or dropped the column in a
/// subtransaction.
pub(super) fn lost_a_column(version: &Relation, catalog: &TableCatalog, xid: u32) -> bool {
    version
        .columns
        .iter()
        .any(|column| dropped_by(catalog, column.attnum).is_some_and(|by| is_older(by, xid)))
}

/// The transaction that dropped a column, where that is known.
fn dropped_by(catalog: &TableCatalog, attnum: i16) -> Option<u32> {
    catalog.dropped.contains(&attnum).then(|| catalog.storage.written_by(attnum)).flatten()
}

/// Transaction ids wrap around (`TransactionIdPrecedes` of the server's `transam.c`).
fn is_older(xid: u32, than: u32) -> bool {
    (xid.wrapping_sub(than) as i32) < 0
}

/// The message is the truth for its place in the stream; the catalog may be older or newer. A column takes
/// from the catalog only what fits the message's type.
pub(super) fn join(
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    before: Option<&Relation>,
    highest: i16,
    place: Place,
) -> Relation {
    let full = message.replica_identity == ReplicaIdentity::Full;
    let attnums = attribute_numbers(message, catalog, before, highest, place.xid);
    let columns: Vec<Column> = message
        .columns
        .iter()
        .zip(attnums)
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
            };
            match known {
                Some(known) => Column { is_key, name: column.name.to_owned(), ..known.clone() },
                None => Column { attnum, ..unknown_column(column, is_key) },
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
    }
}

/// The attribute number of each of the message's columns, which the message does not tell; 0 where nothing does.
///
/// Columns come in the order of their numbers, and a dropped column keeps its number. So the message's columns are
/// laid along the catalog's numbers, dropped ones included, such that names and types agree as well as they can, and
/// with what was known of the table before: the catalog was read later than the message was written, and may be a
/// few changes ahead. Since numbers are never used again, it has one for each of the message's columns, and no better
/// likeness of the others makes up for a column that is left without; and those up to `highest`, the greatest that the
/// table had before, are of columns that it had before. Of several that are alike it takes the lowest, since the message
/// is older than the catalog.
fn attribute_numbers(
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    before: Option<&Relation>,
    highest: i16,
    xid: u32,
) -> Vec<i16> {
    let Some(catalog) = catalog else {
        // Nothing but what was known: by name.
        let known = |column: &ColumnMessage<'_>| {
            let same = |known: &&Column| known.name == column.name && known.type_oid == column.type_oid;
            before.and_then(|before| before.columns.iter().find(same)).map_or(0, |known| known.attnum)
        };
        return message.columns.iter().map(known).collect();
    };
    let is_as_before = |attnum: i16, column: &ColumnMessage<'_>| {
        let known = before.and_then(|before| before.columns.iter().find(|known| known.attnum == attnum));
        known.map(|known| known.name == column.name)
    };
    let is_same = |(column, known): (&ColumnMessage<'_>, &Column)| {
        column.name == known.name && column.type_oid == known.type_oid
    };
    let is_exact = message.columns.len() == catalog.columns.len()
        && message.columns.iter().zip(&catalog.columns).all(is_same);
    if let Some(before) = before.filter(|before| describes(before, message)) {
        let is_dropped_later =
            |column: &Column| dropped_by(catalog, column.attnum).is_some_and(|by| is_older(xid, by));
        if !lost_a_column(before, catalog, xid)
            && (!is_exact || before.columns.iter().any(is_dropped_later))
            && before.columns.iter().all(|column| column.attnum != 0)
        {
            // As it was; what the catalog has that is different came behind this message.
            return before.columns.iter().map(|column| column.attnum).collect();
        }
    }
    let had = |attnum: i16| {
        attnum > highest
            || before.is_some_and(|before| before.columns.iter().any(|known| known.attnum == attnum))
    };
    let was_there =
        |attnum: i16| had(attnum) && !dropped_by(catalog, attnum).is_some_and(|by| is_older(by, xid));
    // Mostly the catalog has these columns, and nothing speaks against them.
    let mut last = 0;
    let simple: Option<Vec<i16>> = message
        .columns
        .iter()
        .map(|column| {
            let known = catalog.columns.iter().find(|known| known.name == column.name)?;
            let fits = known.attnum > last
                && known.type_oid == column.type_oid
                && (is_exact || is_as_before(known.attnum, column) != Some(false));
            last = known.attnum;
            fits.then_some(known.attnum)
        })
        .collect();
    simple.unwrap_or_else(|| {
        let mut candidates: Vec<(i16, Option<&Column>)> = catalog
            .columns
            .iter()
            .map(|column| (column.attnum, Some(column)))
            .chain(catalog.dropped.iter().filter(|attnum| was_there(**attnum)).map(|&attnum| (attnum, None)))
            .collect();
        candidates.sort_unstable_by_key(|(attnum, _)| *attnum);
        let score = |column: &ColumnMessage<'_>, (attnum, known): (i16, Option<&Column>)| {
            let as_before = if is_as_before(attnum, column) == Some(true) { 16 } else { 0 };
            FOUND
                + as_before
                + match known {
                    Some(known) if known.name == column.name && known.type_oid == column.type_oid => 12,
                    Some(known) if known.name == column.name => 8,
                    Some(known) if known.type_oid == column.type_oid => 3,
                    // Its type is not kept.
                    None => 2,
                    Some(_) => 1,
                }
        };
        align(message.columns.len(), candidates.len(), |column, candidate| {
            message.columns.get(column).zip(candidates.get(candidate)).map_or(0, |(c, k)| score(c, *k))
        })
        .into_iter()
        .map(|candidate| candidate.and_then(|index| candidates.get(index)).map_or(0, |(attnum, _)| *attnum))
        .collect()
    })
}

/// What it counts that a column has a number at all: more than anything else that 1600 columns come to.
const FOUND: u32 = 100_000;

/// For each of `left` items in order one of `right`, rising, or none, so that the sum of scores is highest; of several ways, the one with the lowest.
fn align(left: usize, right: usize, score: impl Fn(usize, usize) -> u32) -> Vec<Option<usize>> {
    // best[i][j]: of the first i and the first j.
    let width = right + 1;
    let mut best = vec![0_u32; (left + 1) * width];
    for i in 1..=left {
        for j in 1..=right {
            let without = best[(i - 1) * width + j].max(best[i * width + j - 1]);
            best[i * width + j] = without.max(best[(i - 1) * width + j - 1] + score(i - 1, j - 1));
        }
    }
    let mut found = vec![None; left];
    let (mut i, mut j) = (left, right);
    while i > 0 && j > 0 {
        let here = best[i * width + j];
        if here == best[i * width + j - 1] {
            j -= 1;
        } else if here == best[(i - 1) * width + j - 1] + score(i - 1, j - 1) {
            found[i - 1] = Some(j - 1);
            (i, j) = (i - 1, j - 1);
        } else {
            i -= 1;
        }
    }
    found
}

/// A column that the catalog no longer has: dropped or altered since. Its values are still in the stream.
fn unknown_column(column: &ColumnMessage<'_>, is_key: bool) -> Column {
    let type_sql = built_in_type(column.type_oid, column.type_modifier);
    Column {
        name: column.name.to_owned(),
        attnum: 0,
        type_oid: column.type_oid,
        base_type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        kind: if type_sql.is_some() { ColumnKind::Scalar } else { ColumnKind::Other },
        type_sql: type_sql.unwrap_or_else(|| "text".to_owned()),
        not_null: is_key,
        is_key,
        ..Column::default()
    }
}

/// SQL for a built-in scalar type, with its length or precision.
pub(super) fn built_in_type(type_oid: u32, modifier: i32) -> Option<String> {
    let (name, takes) = match type_oid {
        oid::BOOL => ("boolean", Modifier::None),
        oid::BYTEA => ("bytea", Modifier::None),
        oid::CHAR => ("\"char\"", Modifier::None),
        oid::NAME => ("name", Modifier::None),
        oid::INT8 => ("bigint", Modifier::None),
        oid::INT2 => ("smallint", Modifier::None),
        oid::INT4 => ("integer", Modifier::None),
        oid::TEXT => ("text", Modifier::None),
        oid::OID => ("oid", Modifier::None),
        oid::JSON => ("json", Modifier::None),
        oid::JSONB => ("jsonb", Modifier::None),
        oid::XML => ("xml", Modifier::None),
        oid::FLOAT4 => ("real", Modifier::None),
        oid::FLOAT8 => ("double precision", Modifier::None),
        oid::MONEY => ("money", Modifier::None),
        oid::INET => ("inet", Modifier::None),
        oid::CIDR => ("cidr", Modifier::None),
        oid::MACADDR => ("macaddr", Modifier::None),
        oid::MACADDR8 => ("macaddr8", Modifier::None),
        oid::UUID => ("uuid", Modifier::None),
        oid::PG_LSN => ("pg_lsn", Modifier::None),
        oid::DATE => ("date", Modifier::None),
        oid::BPCHAR => ("character", Modifier::Length),
        oid::VARCHAR => ("character varying", Modifier::Length),
        oid::NUMERIC => ("numeric", Modifier::PrecisionScale),
        oid::TIME => ("time without time zone", Modifier::Nothing),
        oid::TIMETZ => ("time with time zone", Modifier::Nothing),
        oid::TIMESTAMP => ("timestamp without time zone", Modifier::Nothing),
        oid::TIMESTAMPTZ => ("timestamp with time zone", Modifier::Nothing),
        _ => return None,
    };
    // Both kinds of modifier count from 4, the size of the length word (`VARHDRSZ`).
    Some(match takes {
        Modifier::Length if modifier >= 4 => format!("{name}({})", modifier - 4),
        Modifier::PrecisionScale if modifier >= 4 => {
            let packed = modifier - 4;
            // The scale is an 11-bit signed number since Postgres 15.
            let scale = ((packed & 0x7ff) ^ 1024) - 1024;
            format!("{name}({},{scale})", packed >> 16 & 0xffff)
        }
        _ => name.to_owned(),
    })
}

enum Modifier {
    None,
    /// Has one, but a wider column is as good.
    Nothing,
    Length,
    PrecisionScale,
}
