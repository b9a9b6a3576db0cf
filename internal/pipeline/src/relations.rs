//! The tables of the stream, each at its newest schema version: a Relation message joined with what the
//! catalog knows beyond it.
//!
//! ```text
//!   message ─▶ a version kept from an earlier run, if it is that one ─┐
//!        └───▶ laid along the catalog's attribute numbers ────────────┴▶ version
//! ```
//!
//! After a restart messages come again that are older than the catalog, which has names and numbers of today. A version
//! that was told in an earlier run is kept, with its numbers, and stands for its message when that comes again.

use pgoutput::{ColumnMessage, RelationMessage};
use replicator_types::{
    Column, ColumnKind, Lsn, Relation, ReplicaIdentity, TableCatalog, indexes_of_key, key_text_is_identity,
    oid,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Table versions by oid.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    current: HashMap<u32, Arc<Relation>>,
    catalogs: HashMap<u32, TableCatalog>,
    /// Described where that is not to be told: in what is passed over after a reconnect, or in a transaction that is only
    /// prepared. The source does not describe the table again before its next change, so it is told with that.
    announced: HashMap<u32, Arc<Relation>>,
    /// What was told in an earlier run behind the place where this one begins, in order.
    kept: HashMap<u32, Vec<Arc<Relation>>>,
}

/// Where a Relation message comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The commit LSN of its transaction.
    pub(crate) since: Lsn,
    /// Its transaction's id; 0 when it is in none.
    pub(crate) xid: u32,
}

impl Relations {
    /// Remembers what the catalog says of a table, for its next Relation message.
    pub(crate) fn learn(&mut self, catalog: TableCatalog) {
        if self.catalogs.get(&catalog.oid).is_none_or(|known| known.read_at <= catalog.read_at) {
            self.catalogs.insert(catalog.oid, catalog);
        }
    }

    /// What sinks were told of a table before this run, which begins at `watermark`: the newest version from before that
    /// is the table's when the run begins, or the oldest of all; those behind it are met again.
    pub(crate) fn begin_with(&mut self, mut versions: Vec<Arc<Relation>>, watermark: Lsn) {
        versions.sort_by_key(|version| version.since);
        let first = versions.iter().rposition(|version| version.since < watermark).unwrap_or_default();
        let mut versions = versions.into_iter().skip(first);
        let Some(first) = versions.next() else { return };
        let later: Vec<_> = versions.collect();
        if !later.is_empty() {
            self.kept.insert(first.oid, later);
        }
        self.current.insert(first.oid, first);
    }

    /// The table as sinks were told of it last.
    pub(crate) fn told(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.current.get(&oid)
    }

    /// Takes in a Relation message; returns the table's version, and the one before if that was another.
    pub(crate) fn apply(
        &mut self,
        message: &RelationMessage<'_>,
        place: Place,
    ) -> (Arc<Relation>, Option<Arc<Relation>>) {
        self.announced.remove(&message.oid);
        let relation = self.join(message, place);
        self.adopt(relation)
    }

    /// Takes in a Relation message that is not to be told, or not yet; returns what the table is until then.
    pub(crate) fn announce(&mut self, message: &RelationMessage<'_>, place: Place) -> Arc<Relation> {
        let relation = self.join(message, place);
        if let Some(known) = self.current.get(&message.oid).filter(|known| known.is_same_shape(&relation)) {
            self.announced.remove(&message.oid);
            return Arc::clone(known);
        }
        let relation = Arc::new(relation);
        self.announced.insert(message.oid, Arc::clone(&relation));
        relation
    }

    /// Whether [`Relations::apply_announced`] has anything to do for any table.
    pub(crate) fn has_announced(&self) -> bool {
        !self.announced.is_empty()
    }

    /// Takes in what was announced of a table; returns as [`Relations::apply`] does.
    pub(crate) fn apply_announced(&mut self, oid: u32) -> Option<(Arc<Relation>, Option<Arc<Relation>>)> {
        let relation = self.announced.remove(&oid)?;
        Some(self.adopt(Arc::unwrap_or_clone(relation)))
    }

    fn join(&self, message: &RelationMessage<'_>, place: Place) -> Relation {
        let catalog = self.catalogs.get(&message.oid);
        let current = self.current.get(&message.oid).map(Arc::as_ref);
        let kept = self.kept.get(&message.oid).map_or(&[][..], Vec::as_slice);
        if let Some(again) = met_again(kept, current, message, catalog, place) {
            return Relation { since: again.since.min(place.since), ..again.clone() };
        }
        // Sinks know the table as it was last, also where this run has not come by that.
        let is_nearer = |version: &&Arc<Relation>| {
            version.since < place.since && current.is_none_or(|current| current.since < version.since)
        };
        let before = kept.iter().rfind(is_nearer).map(Arc::as_ref).or(current);
        join(message, catalog, before, place)
    }

    /// Takes in a table as the catalog has it, as a version from `since` on; returns the new and the old one if it differs
    /// from what is known.
    /// A table that is not known yet waits for its first Relation message. What the stream has told of since the catalog
    /// was read stays.
    pub(crate) fn apply_catalog(
        &mut self,
        catalog: &TableCatalog,
        since: Lsn,
    ) -> Option<(Arc<Relation>, Arc<Relation>)> {
        self.current.get(&catalog.oid).filter(|known| known.since <= catalog.read_at)?;
        let (relation, before) = self.adopt(Relation { since, ..catalog.relation() });
        before.map(|before| (relation, before))
    }

    fn adopt(&mut self, mut relation: Relation) -> (Arc<Relation>, Option<Arc<Relation>>) {
        let known = self.current.get(&relation.oid);
        if let Some(known) = known {
            if known.is_same_shape(&relation) {
                return (Arc::clone(known), None);
            }
            relation.version = known.version + 1;
        }
        let relation = Arc::new(relation);
        let before = self.current.insert(relation.oid, Arc::clone(&relation));
        (relation, before)
    }
}

/// The kept version that a message is of, if it is one's: the one that was told from its very place; or the last from
/// before, unless the table looks like the message without it; or the next, since what the catalog told of was there a
/// while before that.
fn met_again<'a>(
    kept: &'a [Arc<Relation>],
    current: Option<&Relation>,
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    place: Place,
) -> Option<&'a Relation> {
    let mut alike = kept.iter().map(Arc::as_ref).filter(|version| describes(version, message));
    if let Some(there) = alike.clone().find(|version| version.since == place.since) {
        return Some(there);
    }
    let has_all =
        |version: &Relation| !catalog.is_some_and(|catalog| lost_a_column(version, catalog, place.xid));
    let last = kept.iter().rfind(|version| version.since < place.since).map(Arc::as_ref);
    let last = last.filter(|last| current.is_none_or(|current| current.since < last.since));
    match last.or(current) {
        Some(before) if describes(before, message) && has_all(before) => last,
        _ => alike.find(|version| version.since > place.since && has_all(version)),
    }
}

/// Whether the message could have come from the table at that version, by all that a message tells.
fn describes(version: &Relation, message: &RelationMessage<'_>) -> bool {
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
fn lost_a_column(version: &Relation, catalog: &TableCatalog, xid: u32) -> bool {
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
fn join(
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    before: Option<&Relation>,
    place: Place,
) -> Relation {
    let full = message.replica_identity == ReplicaIdentity::Full;
    let attnums = attribute_numbers(message, catalog, before, place.xid);
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
/// likeness of the others makes up for a column that is left without.
fn attribute_numbers(
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    before: Option<&Relation>,
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
    let was_there = |attnum: i16| !dropped_by(catalog, attnum).is_some_and(|by| is_older(by, xid));
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

/// For each of `left` items in order one of `right`, rising, or none, so that the sum of scores is highest.
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
        if here == best[(i - 1) * width + j - 1] + score(i - 1, j - 1) && score(i - 1, j - 1) > 0 {
            found[i - 1] = Some(j - 1);
            (i, j) = (i - 1, j - 1);
        } else if here == best[i * width + j - 1] {
            j -= 1;
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
fn built_in_type(type_oid: u32, modifier: i32) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(columns: Vec<ColumnMessage<'static>>) -> RelationMessage<'static> {
        let replica_identity = ReplicaIdentity::Default;
        RelationMessage { xid: None, oid: 7, schema: "public", name: "t", replica_identity, columns }
    }

    fn column(name: &'static str, type_oid: u32, type_modifier: i32) -> ColumnMessage<'static> {
        ColumnMessage { in_identity: name == "id", name, type_oid, type_modifier }
    }

    /// Texts by attribute number; `id` is the key.
    fn catalog(columns: &[(i16, &str)], dropped: &[i16]) -> TableCatalog {
        let column =
            |&(attnum, name): &(i16, &str)| Column { name: name.into(), attnum, ..Column::default() };
        TableCatalog {
            oid: 7,
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
            primary_key: vec!["id".into()],
            identity_index: vec![],
            read_at: Lsn(1000),
            dropped: dropped.to_vec(),
            nondeterministic: vec![],
            storage: replicator_types::Storage::default(),
        }
    }

    fn at(since: u64) -> Place {
        Place { since: Lsn(since), xid: 0 }
    }

    fn texts(names: &[&'static str]) -> RelationMessage<'static> {
        message(names.iter().map(|name| column(name, oid::TEXT, -1)).collect())
    }

    fn attnums(relation: &Relation) -> Vec<(i16, &str)> {
        relation.columns.iter().map(|column| (column.attnum, column.name.as_str())).collect()
    }

    #[test]
    fn a_message_from_before_a_drop_and_a_rename_is_not_misled_by_the_newer_catalog() {
        let mut relations = Relations::default();
        let newer = catalog(&[(1, "id"), (3, "a"), (4, "c")], &[2]);
        // As after a restart: the catalog is also what is known.
        relations.begin_with(vec![Arc::new(newer.relation())], Lsn(5));
        relations.learn(newer);
        let old = ["id", "a", "b", "c"]
            .map(|name| column(name, if name == "a" { oid::INT4 } else { oid::TEXT }, -1));
        let (relation, _) = relations.apply(&message(old.to_vec()), at(5));
        assert_eq!(attnums(&relation), [(1, "id"), (2, "a"), (3, "b"), (4, "c")]);
    }

    /// The catalog, with the transaction that dropped each column.
    fn catalog_of(columns: &[(i16, &str)], dropped: &[(i16, u32)]) -> TableCatalog {
        let numbers: Vec<i16> = dropped.iter().map(|(attnum, _)| *attnum).collect();
        let mut catalog = catalog(columns, &numbers);
        catalog.storage.attributes = dropped.to_vec();
        catalog
    }

    fn version(columns: &[(i16, &str)], since: u64) -> Arc<Relation> {
        Arc::new(Relation { since: Lsn(since), ..catalog(columns, &[]).relation() })
    }

    #[test]
    fn a_column_has_the_number_that_it_had_when_its_transaction_ran_whoever_has_its_name_by_now() {
        let mut relations = Relations::default();
        relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
        relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 700)]));
        let place = |since, xid| Place { since: Lsn(since), xid };
        let (before, _) = relations.apply(&texts(&["id", "a"]), place(20, 699));
        assert_eq!(attnums(&before), [(1, "id"), (2, "a")]);
        let (after, told) = relations.apply(&texts(&["id", "a"]), place(30, 701));
        assert_eq!(attnums(&after), [(1, "id"), (3, "a")]);
        assert!(told.is_some());
        // Numbers of transactions wrap around.
        let mut relations = Relations::default();
        relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
        relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 5)]));
        let (before, _) = relations.apply(&texts(&["id", "a"]), place(20, u32::MAX - 3));
        assert_eq!(attnums(&before), [(1, "id"), (2, "a")]);
    }

    #[test]
    fn a_transaction_that_drops_a_column_and_adds_another_of_its_name_is_laid_along_the_catalog() {
        let mut relations = Relations::default();
        relations.begin_with(vec![version(&[(1, "id"), (2, "a")], 10)], Lsn(10));
        relations.learn(catalog_of(&[(1, "id"), (3, "a")], &[(2, 700)]));
        let (anew, _) = relations.apply(&texts(&["id", "a"]), Place { since: Lsn(20), xid: 700 });
        assert_eq!(attnums(&anew), [(1, "id"), (3, "a")]);
    }

    #[test]
    fn versions_of_an_earlier_run_are_met_again_in_their_places_with_their_numbers() {
        let names = |versions: &[&[(i16, &'static str)]]| -> Vec<Vec<&'static str>> {
            versions.iter().map(|version| version.iter().map(|(_, name)| *name).collect()).collect()
        };
        // a passes its name on twice, and in the end has its own again.
        let versions: [&[(i16, &'static str)]; 4] = [
            &[(1, "id"), (2, "a"), (3, "b")],
            &[(1, "id"), (2, "x"), (3, "a"), (4, "b")],
            &[(1, "id"), (2, "b"), (3, "x"), (4, "a")],
            &[(1, "id"), (2, "a"), (3, "b"), (4, "x")],
        ];
        let newest = catalog_of(&[(1, "id"), (4, "a"), (5, "b"), (6, "x")], &[(2, 900), (3, 900)]);
        let mut relations = Relations::default();
        let kept: Vec<_> =
            versions.iter().zip(1..).map(|(columns, number)| version(columns, number * 10)).collect();
        relations.begin_with(kept, Lsn(15));
        assert_eq!(relations.told(7).map(|told| told.since), Some(Lsn(10)), "what lies before the watermark");
        relations.learn(newest);
        for (number, names) in names(&versions).iter().enumerate().skip(1) {
            let since = (number as u64 + 1) * 10;
            let (again, before) = relations.apply(&texts(names), at(since));
            assert_eq!(attnums(&again), versions[number]);
            assert_eq!(again.since, Lsn(since));
            assert!(before.is_some());
            // Described again, as after a reconnect.
            let place = Place { since: Lsn(since + 5), xid: 800 };
            let (same, before) = relations.apply(&texts(names), place);
            assert!(Arc::ptr_eq(&same, &again) && before.is_none());
        }
    }

    #[test]
    fn a_version_that_the_catalog_told_of_is_met_again_from_before_and_from_behind() {
        let (old, new): (&[_], &[_]) =
            (&[(1, "id"), (2, "a"), (3, "b")], &[(1, "id"), (2, "b"), (3, "a"), (4, "c")]);
        for place in [20, 40] {
            let mut relations = Relations::default();
            relations.begin_with(vec![version(old, 10), version(new, 30)], Lsn(10));
            // By now everything has another name.
            relations.learn(catalog(&[(1, "id"), (2, "c"), (3, "b"), (5, "a")], &[4]));
            let (first, _) = relations.apply(&texts(&["id", "a", "b"]), at(15));
            assert_eq!(attnums(&first), old);
            let (again, _) = relations.apply(&texts(&["id", "b", "a", "c"]), at(place));
            assert_eq!(attnums(&again), new);
            assert_eq!(again.since, Lsn(place.min(30)));
        }
    }

    #[test]
    fn what_comes_behind_a_version_of_the_catalog_is_laid_along_it() {
        let mut relations = Relations::default();
        let (old, swapped): (&[_], &[_]) =
            (&[(1, "id"), (2, "a"), (3, "b")], &[(1, "id"), (2, "b"), (3, "a")]);
        relations.begin_with(vec![version(old, 10), version(swapped, 30)], Lsn(10));
        relations.learn(catalog(&[(1, "id"), (3, "a")], &[2]));
        let (next, before) = relations.apply(&texts(&["id", "b", "c"]), at(40));
        assert_eq!(attnums(&next), [(1, "id"), (2, "b"), (3, "c")]);
        assert_eq!(before.map(|before| before.since), Some(Lsn(10)), "this run has told of no other");
    }

    #[test]
    fn the_same_shape_keeps_its_version_and_another_gets_the_next() {
        let mut relations = Relations::default();
        let narrow = message(vec![column("id", oid::INT8, -1)]);
        let wide = message(vec![column("id", oid::INT8, -1), column("v", oid::TEXT, -1)]);
        let (first, before) = relations.apply(&narrow, at(5));
        assert!(before.is_none());
        let (again, before) = relations.apply(&narrow, at(6));
        assert!(Arc::ptr_eq(&first, &again) && before.is_none());
        let (second, before) = relations.apply(&wide, at(7));
        assert_eq!((first.version, second.version), (0, 1));
        assert_eq!((first.since, second.since), (Lsn(5), Lsn(7)));
        assert!(before.is_some_and(|before| Arc::ptr_eq(&before, &first)));
        assert_eq!(second.key, [0]);
    }

    #[test]
    fn under_full_the_primary_key_of_the_catalog_is_the_key() {
        let mut relations = Relations::default();
        let mut full = texts(&["id", "v"]);
        full.replica_identity = ReplicaIdentity::Full;
        full.columns.iter_mut().for_each(|column| column.in_identity = true);
        assert!(relations.apply(&full, at(1)).0.key.is_empty());
        relations.learn(catalog(&[(1, "id"), (2, "v")], &[]));
        assert_eq!(relations.apply(&full, at(2)).0.key, [0]);
    }

    #[test]
    fn a_renamed_column_keeps_its_number_and_one_dropped_and_added_anew_has_another() {
        let mut relations = Relations::default();
        relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
        relations.apply(&texts(&["id", "a", "b"]), at(1));
        relations.learn(catalog(&[(1, "id"), (2, "x"), (3, "b")], &[]));
        let (renamed, _) = relations.apply(&texts(&["id", "x", "b"]), at(2));
        assert_eq!(attnums(&renamed), [(1, "id"), (2, "x"), (3, "b")]);
        relations.learn(catalog(&[(1, "id"), (3, "b"), (4, "x")], &[2]));
        let (anew, _) = relations.apply(&texts(&["id", "b", "x"]), at(3));
        assert_eq!(attnums(&anew), [(1, "id"), (3, "b"), (4, "x")]);
    }

    #[test]
    fn a_message_older_than_the_catalog_is_laid_along_its_numbers() {
        // a was renamed to x, b to a, c dropped, and d added since.
        let ahead = catalog(&[(1, "id"), (2, "x"), (3, "a"), (5, "d")], &[4]);
        let mut relations = Relations::default();
        relations.learn(ahead.clone());
        let (old, _) = relations.apply(&texts(&["id", "a", "b", "c"]), at(1));
        // Without knowing better, `a` is the one of that name, and what follows it lies behind it.
        assert_eq!(attnums(&old).first(), Some(&(1, "id")));
        assert!(old.columns.windows(2).all(|pair| pair[0].attnum < pair[1].attnum), "{:?}", attnums(&old));

        // Known from before, they are all found.
        let mut relations = Relations::default();
        relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b"), (4, "c")], &[]));
        relations.apply(&texts(&["id", "a", "b", "c"]), at(1));
        relations.learn(ahead);
        let (old, _) = relations.apply(&texts(&["id", "a", "b", "c"]), at(2));
        assert_eq!(attnums(&old), [(1, "id"), (2, "a"), (3, "b"), (4, "c")]);
        let (swapped, _) = relations.apply(&texts(&["id", "x", "a", "c"]), at(3));
        assert_eq!(attnums(&swapped), [(1, "id"), (2, "x"), (3, "a"), (4, "c")]);
        let (newest, _) = relations.apply(&texts(&["id", "x", "a", "d"]), at(4));
        assert_eq!(attnums(&newest), [(1, "id"), (2, "x"), (3, "a"), (5, "d")]);
    }

    #[test]
    fn names_that_change_places_are_told_apart_by_number() {
        let mut relations = Relations::default();
        relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
        relations.apply(&texts(&["id", "a", "b"]), at(1));
        relations.learn(catalog(&[(1, "id"), (2, "b"), (3, "a")], &[]));
        let (swapped, _) = relations.apply(&texts(&["id", "b", "a"]), at(2));
        assert_eq!(attnums(&swapped), [(1, "id"), (2, "b"), (3, "a")]);
    }

    #[test]
    fn a_column_that_takes_the_name_of_a_dropped_one_is_not_taken_for_it() {
        let mut relations = Relations::default();
        relations.learn(catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]));
        relations.apply(&texts(&["id", "a", "b"]), at(1));
        relations.learn(catalog(&[(1, "id"), (3, "a")], &[2]));
        let (renamed, _) = relations.apply(&texts(&["id", "a"]), at(2));
        assert_eq!(attnums(&renamed), [(1, "id"), (3, "a")]);
    }

    #[test]
    fn the_catalog_alone_makes_a_version_of_a_known_table_only() {
        let mut relations = Relations::default();
        let wide = catalog(&[(1, "id"), (2, "a"), (3, "b")], &[]);
        assert!(relations.apply_catalog(&wide, Lsn(1008)).is_none());
        relations.learn(catalog(&[(1, "id"), (2, "a")], &[]));
        relations.apply(&texts(&["id", "a"]), at(1));
        assert!(relations.apply_catalog(&catalog(&[(1, "id"), (2, "a")], &[]), Lsn(1008)).is_none());
        let (new, old) = relations.apply_catalog(&wide, Lsn(1008)).unwrap();
        assert_eq!((old.columns.len(), new.columns.len(), new.since), (2, 3, Lsn(1008)));
        relations.learn(wide);
        assert!(
            relations.apply(&texts(&["id", "a", "b"]), at(2000)).1.is_none(),
            "the message tells nothing new"
        );
    }

    #[test]
    fn type_modifiers_are_read_as_the_server_packs_them() {
        assert_eq!(built_in_type(oid::NUMERIC, (12 << 16 | 2) + 4).as_deref(), Some("numeric(12,2)"));
        assert_eq!(built_in_type(oid::NUMERIC, (3 << 16 | 0x7fe) + 4).as_deref(), Some("numeric(3,-2)"));
        assert_eq!(built_in_type(oid::VARCHAR, 84).as_deref(), Some("character varying(80)"));
        assert_eq!(built_in_type(oid::BPCHAR, 12).as_deref(), Some("character(8)"));
        assert_eq!(built_in_type(99_999, -1), None);
    }
}
