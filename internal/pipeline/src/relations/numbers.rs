//! The attribute numbers of a Relation message's columns, which it does not tell.
//!
//! A column keeps its number for good, and numbers are given out in order and never again. So the columns of a message
//! are the first of those that the catalog has, in the order of their numbers, with the ones that were dropped after the
//! message and without those dropped before it. Which that is, the ids of transactions tell: the catalog has with each
//! column who wrote its entry last. Where that leaves more than one way, or contradicts the names, the numbers are a
//! guess, and the table's rows have to be copied.
//!
//! Ids tell the order but where a transaction had its id long before it came to the table, or altered it in a
//! subtransaction: one that alters a table waits for those that have written to it, and those that come wait for it.

use super::Place;
use super::join::describes;
use pgoutput::{ColumnMessage, RelationMessage};
use replicator_types::{Column, Relation, TableCatalog};

/// What is known of a message's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) catalog: &'a TableCatalog,
    /// How it was told last.
    pub(super) before: Option<&'a Relation>,
    /// The greatest number that it had so far.
    pub(super) highest: i16,
    /// Whether the source has described the table on this connection before, in another way.
    pub(super) has_changed: bool,
    /// All transactions with older ids were over before anything of the stream was written.
    pub(super) horizon: Option<u32>,
}

/// Numbers in the order of the message's columns; 0 where nothing tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Numbers {
    pub(super) attnums: Vec<i16>,
    pub(super) is_guess: bool,
}

/// See the module.
pub(super) fn numbers(message: &RelationMessage<'_>, table: Table<'_>, place: Place) -> Numbers {
    let laid = Laid::new(message, table, place.xid);
    let by_name = laid.by_name();
    let sure = |attnums, is_sure: bool| Numbers { attnums, is_guess: !is_sure };
    let guess = || Numbers { attnums: laid.alike(table.highest), is_guess: true };
    let before = table.before.filter(|before| describes(before, message));
    let as_before =
        before.map(|before| before.columns.iter().map(|column| column.attnum).collect::<Vec<_>>());
    // The catalog may be from before the message, or from before others saw what the message's transaction did. Mostly
    // somebody just holds a lock, and nothing is different.
    if table.catalog.read_at <= place.since {
        return match by_name {
            Some(attnums) => {
                let is_sure = table.before.is_some() && !laid.pass_names_on(&attnums);
                sure(attnums, is_sure)
            }
            None => guess(),
        };
    }
    if let Some(attnums) = by_name.clone().filter(|attnums| attnums.iter().all(|of| laid.is_older(*of))) {
        let is_sure = table.has_changed || !laid.pass_names_on(&attnums);
        return sure(attnums, is_sure);
    }
    let mut ways = laid.ways();
    let is_named_so = |attnums: &Vec<i16>| by_name.as_ref().is_none_or(|named| named == attnums);
    if let Some(before) = as_before.filter(|attnums| ways.contains(attnums) || laid.may_still_be(attnums)) {
        let is_sure = is_named_so(&before);
        let is_lost = |attnum: &i16| laid.dropped_by(*attnum) == Some(place.xid);
        let attnums = by_name.filter(|_| before.iter().any(is_lost)).unwrap_or(before);
        return sure(attnums, is_sure);
    }
    match (&by_name, ways.len()) {
        (_, 1) => {
            let attnums = ways.pop().unwrap_or_default();
            let is_sure = is_named_so(&attnums) && !laid.may_be_dropped(&attnums);
            sure(attnums, is_sure)
        }
        // None: some columns are not published.
        (Some(attnums), ways_found) if ways_found == 0 || ways.contains(attnums) => {
            let is_new = table.before.is_some() && !laid.pass_names_on(attnums);
            let is_sure = is_new || ways_found == 0 && !laid.may_be_others(attnums);
            sure(attnums.clone(), is_sure)
        }
        _ => guess(),
    }
}

/// Whether a transaction older than `xid` has dropped one of the version's columns: then another column has its name in
/// the messages of `xid`.
pub(super) fn lost_a_column(version: &Relation, catalog: &TableCatalog, xid: u32) -> bool {
    version
        .columns
        .iter()
        .any(|column| dropped_by(catalog, column.attnum).is_some_and(|by| is_older(by, xid)))
}

/// By name, where nothing but an earlier version is known.
pub(super) fn numbers_of(before: Option<&Relation>, message: &RelationMessage<'_>) -> Numbers {
    let known = |column: &ColumnMessage<'_>| {
        let same = |known: &&Column| is_same(column, known);
        before.and_then(|before| before.columns.iter().find(same)).map_or(0, |known| known.attnum)
    };
    Numbers { attnums: message.columns.iter().map(known).collect(), is_guess: false }
}

/// The transaction that dropped a column, where that is known.
fn dropped_by(catalog: &TableCatalog, attnum: i16) -> Option<u32> {
    catalog.dropped.contains(&attnum).then(|| catalog.storage.written_by(attnum)).flatten()
}

/// Transaction ids wrap around (`TransactionIdPrecedes` of the server's `transam.c`).
fn is_older(xid: u32, than: u32) -> bool {
    (xid.wrapping_sub(than) as i32) < 0
}

/// A message of transaction `xid`, to be laid along the catalog's columns.
struct Laid<'a> {
    message: &'a RelationMessage<'a>,
    catalog: &'a TableCatalog,
    xid: u32,
    horizon: Option<u32>,
    /// By number.
    entries: Vec<Entry<'a>>,
    /// Whether anything is known from before.
    is_known: bool,
    highest_before: i16,
}

/// What is known of an attribute number.
#[derive(Clone, Copy, Default)]
struct Entry<'a> {
    written_by: Option<u32>,
    now: Option<&'a Column>,
    is_dropped: bool,
    before: Option<&'a Column>,
}

impl<'a> Laid<'a> {
    fn new(message: &'a RelationMessage<'a>, table: Table<'a>, xid: u32) -> Self {
        let Table { catalog, before, horizon, .. } = table;
        let mut entries: Vec<Entry<'_>> = Vec::new();
        let mut set = |attnum: i16, set: &dyn Fn(&mut Entry<'a>)| {
            let Ok(index) = usize::try_from(attnum) else { return };
            if entries.len() <= index {
                entries.resize(index + 1, Entry::default());
            }
            entries.get_mut(index).into_iter().for_each(set);
        };
        for (attnum, xid) in &catalog.storage.attributes {
            set(*attnum, &|entry| entry.written_by = Some(*xid));
        }
        for column in &catalog.columns {
            set(column.attnum, &|entry| entry.now = Some(column));
        }
        for attnum in &catalog.dropped {
            set(*attnum, &|entry| entry.is_dropped = true);
        }
        let known = before.map_or(&[][..], |before| &before.columns);
        for column in known {
            set(column.attnum, &|entry| entry.before = Some(column));
        }
        let highest_before = known.iter().map(|column| column.attnum).max().unwrap_or_default();
        Self { message, catalog, xid, horizon, entries, is_known: before.is_some(), highest_before }
    }

    fn entry(&self, attnum: i16) -> Entry<'a> {
        usize::try_from(attnum).ok().and_then(|index| self.entries.get(index)).copied().unwrap_or_default()
    }

    fn dropped_by(&self, attnum: i16) -> Option<u32> {
        let entry = self.entry(attnum);
        entry.written_by.filter(|_| entry.is_dropped)
    }

    /// Whether the column has been as the catalog has it since before the message.
    fn is_older(&self, attnum: i16) -> bool {
        self.entry(attnum).written_by.is_some_and(|by| is_older(by, self.xid))
    }

    /// Each of the message's columns is one of the catalog's by name and type.
    fn by_name(&self) -> Option<Vec<i16>> {
        let mut last = 0;
        let number = |column: &ColumnMessage<'_>| {
            let known = self.catalog.columns.iter().find(|known| is_same(column, known))?;
            let is_behind = known.attnum > last;
            last = known.attnum;
            is_behind.then_some(known.attnum)
        };
        self.message.columns.iter().map(number).collect()
    }

    /// The table's columns in order, with the numbers of those that were dropped since the message, perhaps.
    fn candidates(&self) -> Vec<i16> {
        let all = self.entries.iter().zip(0..);
        let was_there = |(entry, attnum): &(&Entry<'_>, i16)| {
            entry.now.is_some() || entry.is_dropped && !self.is_older(*attnum)
        };
        all.filter(was_there).map(|(_, attnum)| attnum).collect()
    }

    /// The ways in which the message's columns may be the first of the table's, where nothing speaks against it. Of what no
    /// older transaction has dropped some may have been dropped before the message all the same: by its own.
    fn ways(&self) -> Vec<Vec<i16>> {
        let candidates = self.candidates();
        let mut dropped = 0_u32;
        // With the place of each among those that are dropped.
        let candidates: Vec<(i16, Option<u32>)> = candidates
            .into_iter()
            .map(|attnum| {
                let place = self.entry(attnum).is_dropped.then_some(dropped);
                dropped += u32::from(place.is_some());
                (attnum, place)
            })
            .collect();
        if dropped > DROPPED_MAX {
            return Vec::new();
        }
        let stays = |place: Option<u32>, which: u32| place.is_none_or(|place| which >> place & 1 == 0);
        let without = |which: u32| -> Vec<i16> {
            candidates.iter().filter(|(_, place)| stays(*place, which)).map(|(attnum, _)| *attnum).collect()
        };
        let mut ways: Vec<Vec<i16>> =
            (0..1 << dropped).filter_map(|which| self.first_of(without(which))).collect();
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    /// The message's columns as the first of these.
    fn first_of(&self, mut candidates: Vec<i16>) -> Option<Vec<i16>> {
        let (taken, rest) = candidates.split_at_checked(self.message.columns.len())?;
        let came_later = |attnum: &i16| self.entry(*attnum).is_dropped || !self.is_older(*attnum);
        let is_possible = self.may_still_be(taken) && rest.iter().all(came_later);
        candidates.truncate(self.message.columns.len());
        is_possible.then_some(candidates)
    }

    /// Whether nothing speaks against these numbers: the catalog has them alike, or somebody has changed them since.
    fn may_still_be(&self, attnums: &[i16]) -> bool {
        let fits = |(column, attnum): (&ColumnMessage<'_>, &i16)| match self.entry(*attnum).now {
            Some(known) => is_same(column, known) || !self.is_older(*attnum),
            None => self.entry(*attnum).is_dropped && !self.is_older(*attnum),
        };
        self.message.columns.iter().zip(attnums).all(fits)
    }

    /// Whether a column of an earlier version has passed its name on to another one.
    fn pass_names_on(&self, attnums: &[i16]) -> bool {
        let other = |(column, attnum): (&ColumnMessage<'_>, &i16)| {
            let is_it = |known: &&Column| known.name == column.name && known.attnum != *attnum;
            let known = self.entries.iter().filter_map(|entry| entry.before).find(is_it);
            known.is_some_and(|known| is_same(column, known) && !self.was_over(known.attnum))
        };
        self.is_known && self.message.columns.iter().zip(attnums).any(other)
    }

    /// Whether whoever wrote the column's entry last was done with it before the stream.
    fn was_over(&self, attnum: i16) -> bool {
        let by = self.entry(attnum).written_by;
        by.zip(self.horizon).is_some_and(|(by, horizon)| is_older(by, horizon))
    }

    /// Whether a column that an older transaction has dropped may have been there all the same: that came to the table late.
    /// Only where the columns look otherwise in the catalog, so that something was done to them since.
    fn may_be_dropped(&self, attnums: &[i16]) -> bool {
        let is_other = |(column, attnum): (&ColumnMessage<'_>, &i16)| {
            self.entry(*attnum).now.is_some_and(|known| !is_same(column, known))
        };
        let was_gone = |attnum: i16| {
            self.was_over(attnum) || self.highest_before >= attnum && self.entry(attnum).before.is_none()
        };
        let is_late = |attnum: &i16| {
            let by = self.dropped_by(*attnum);
            by.is_some_and(|by| is_older(by, self.xid) && self.xid.wrapping_sub(by) < LATE_MAX)
        };
        self.message.columns.iter().zip(attnums).any(is_other)
            && self.catalog.dropped.iter().any(|attnum| is_late(attnum) && !was_gone(*attnum))
    }

    /// Whether a column whose name may have been another's has these numbers.
    fn may_be_others(&self, attnums: &[i16]) -> bool {
        let newer = self.candidates().into_iter().filter(|attnum| !self.is_older(*attnum));
        let (taken, others): (Vec<i16>, Vec<i16>) = newer.partition(|attnum| attnums.contains(attnum));
        !taken.is_empty() && !others.is_empty()
    }

    /// The numbers whose columns are most like the message's, in order: names and types agree as well as they can, also
    /// with what was known of the table before. No better likeness of the others makes up for a column that is left
    /// without a number; and those up to `highest` are of columns that the table had before. Of several that are alike the
    /// lowest, since the message is older than the catalog.
    fn alike(&self, highest: i16) -> Vec<i16> {
        let mut candidates = self.candidates();
        candidates.retain(|attnum| {
            let entry = self.entry(*attnum);
            entry.now.is_some() || *attnum > highest || entry.before.is_some()
        });
        let columns = &self.message.columns;
        let score = |column: &ColumnMessage<'_>, attnum: i16| {
            let entry = self.entry(attnum);
            let as_before = entry.before.is_some_and(|known| known.name == column.name);
            FOUND
                + if as_before { 16 } else { 0 }
                + match entry.now {
                    Some(known) if is_same(column, known) => 12,
                    Some(known) if known.name == column.name => 8,
                    Some(known) if known.type_oid == column.type_oid => 3,
                    // Its type is not kept.
                    None => 2,
                    Some(_) => 1,
                }
        };
        let found = align(columns.len(), candidates.len(), |column, candidate| {
            columns.get(column).zip(candidates.get(candidate)).map_or(0, |(c, k)| score(c, *k))
        });
        let number = |candidate: Option<usize>| {
            candidate.and_then(|index| candidates.get(index)).copied().unwrap_or(0)
        };
        found.into_iter().map(number).collect()
    }
}

fn is_same(column: &ColumnMessage<'_>, known: &Column) -> bool {
    column.name == known.name && column.type_oid == known.type_oid
}

/// Of more columns that may have been dropped or not, the ways are not gone through.
const DROPPED_MAX: u32 = 10;

/// No transaction lasts while so many others are begun.
const LATE_MAX: u32 = 1 << 24;

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
