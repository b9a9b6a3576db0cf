//! A table's columns as a sink with state has them. Numbers tell them apart; where a version lacks one, the name does, as in
//! the Postgres sink's record of its tables.

use replicator_model::source::FullRow;
use replicator_types::{Column, Lsn, Relation};

/// What a change gives to columns other than the key and the large value: their numbers, names, texts.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    since: Lsn,
    values: Vec<(i16, String, String)>,
}

impl Given {
    pub(crate) fn new(relation: &Relation) -> Self {
        Self { since: relation.since, values: Vec::new() }
    }

    pub(crate) fn push(&mut self, column: &Column, text: String) {
        self.values.push((column.attnum, column.name.clone(), text));
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    /// Of the version that it was brought to last: from where on, and which change of that transaction.
    since: (Lsn, u64),
    columns: Vec<Known>,
    last_place: i16,
}

#[derive(Clone, Debug)]
struct Known {
    attnum: i16,
    name: String,
    /// In rows. Never given out again.
    place: i16,
}

impl Columns {
    /// Brings the table to the version, unless it is there or further.
    pub(crate) fn follow(&mut self, relation: &Relation, turn: u64) {
        if (relation.since, turn) <= self.since && !self.columns.is_empty() {
            return;
        }
        let mut columns = Vec::new();
        for column in &relation.columns {
            let known = self.known(column.attnum, &column.name).cloned();
            let known = known.unwrap_or_else(|| {
                self.last_place += 1;
                Known { attnum: 0, name: String::new(), place: self.last_place }
            });
            let attnum = if column.attnum == 0 { known.attnum } else { column.attnum };
            columns.push(Known { attnum, name: column.name.clone(), place: known.place });
        }
        self.columns = columns;
        self.since = (relation.since, turn);
    }

    fn known(&self, attnum: i16, name: &str) -> Option<&Known> {
        let by_name = || self.columns.iter().find(|known| known.name == name);
        if attnum == 0 {
            return by_name();
        }
        let by_number = self.columns.iter().find(|known| known.attnum == attnum);
        by_number.or_else(|| by_name().filter(|known| known.attnum == 0))
    }

    /// Where a column's values are in rows.
    pub(crate) fn place(&self, attnum: i16, name: &str) -> Option<i16> {
        self.known(attnum, name).map(|known| known.place)
    }

    /// Numbers and names, in order.
    pub(crate) fn names(&self) -> Vec<(i16, String)> {
        self.columns.iter().map(|column| (column.attnum, column.name.clone())).collect()
    }

    /// What a change gives, by places. What was dropped since is left out.
    ///
    /// # Errors
    /// The change is of a version that the table was not brought to.
    pub(crate) fn placed(&self, given: &Given) -> Result<FullRow, String> {
        let mut row = FullRow::new();
        for (attnum, name, text) in &given.values {
            match self.place(*attnum, name) {
                Some(place) => {
                    row.insert(place, text.clone());
                }
                None if given.since <= self.since.0 => {}
                None => return Err(format!("a row with column {attnum} `{name}` comes before the column")),
            }
        }
        Ok(row)
    }
}
