//! Every statement that applies changes, as text.
//!
//! Staged rows lie in temporary tables `pg_temp.replicator_{id}_{keys|rows|partials}`, whose columns are those of
//! [`Target::columns`], with the target's own names (which errors show) and types. `partials` has one more,
//! `unchanged`: a bit for each column, set where the target's value stays.

use crate::copy_text::Format;
use crate::target::{KeyColumn, Target, TargetColumn};

/// What is staged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stage {
    /// Keys of rows to remove.
    Keys,
    /// Whole rows.
    Rows,
    /// Rows with unchanged columns.
    Partials,
}

/// A statement that is prepared once a table version and connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Query {
    /// COPY new rows into the table itself.
    CopyNew(Format),
    /// COPY into a stage.
    CopyTo(Stage, Format),
    /// Remove the rows that a stage has the keys of: of `Keys`, or of `Rows` to write them anew.
    Delete(Stage),
    /// Set all columns of the rows staged as `Rows`.
    Update,
    /// Set the columns known of the rows staged as `Partials`.
    UpdatePartials,
    /// Add those staged as `Rows` that the table does not have.
    InsertMissing,
    /// Remove a row for each that is staged as `Rows`.
    DeleteSame,
    /// Remove one row that has these values.
    DeleteOne,
    /// Set all columns that can be set of one row that has these values. Parameters: the new values, then those
    /// of all columns before.
    UpdateOne,
}

/// An identifier, quoted.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, quoted.
pub(crate) fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

fn with(format: Format) -> &'static str {
    match format {
        Format::Text => "",
        Format::Binary => " (FORMAT binary)",
    }
}

/// A string constant that means the same whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Target {
    pub(crate) fn stage(&self, stage: Stage) -> String {
        let of = match stage {
            Stage::Keys => "keys",
            Stage::Rows => "rows",
            Stage::Partials => "partials",
        };
        format!("pg_temp.replicator_{}_{of}", self.id)
    }

    /// Whether [`Stage::Partials`] can have a column more than the table: `MaxHeapAttributeNumber` of
    /// `src/include/access/htup_details.h`.
    pub(crate) fn has_room_for_mask(&self) -> bool {
        const COLUMNS_MAX: usize = 1600;
        self.columns.len() < COLUMNS_MAX
    }

    /// Makes a staging table. Not ON COMMIT DELETE ROWS: that empties every such table of the session at every
    /// commit, at half a millisecond each.
    pub(crate) fn create_stage(&self, stage: Stage) -> String {
        let of_column = |column: &TargetColumn| match (&column.domain_base, stage) {
            // A domain may refuse the NULL that stands for an unchanged value.
            (Some(base), Stage::Partials) => format!("{0}::{base} AS {0}", column.name),
            _ => column.name.clone(),
        };
        let columns = self.columns.iter().filter(|column| stage != Stage::Keys || column.is_key);
        let mut columns: Vec<String> = columns.map(of_column).collect();
        if stage == Stage::Partials {
            columns.push(format!("NULL::pg_catalog.varbit AS {}", self.mask()));
        }
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} AS SELECT {} FROM {} WITH NO DATA",
            self.stage(stage).trim_start_matches("pg_temp."),
            columns.join(", "),
            self.table
        )
    }

    /// The text of a query. None when there is nothing to set.
    pub(crate) fn text(&self, query: Query) -> Option<String> {
        let table = &self.table;
        Some(match query {
            Query::CopyNew(format) => {
                format!("COPY {table} ({}) FROM STDIN{}", self.names().join(", "), with(format))
            }
            Query::CopyTo(stage, format) => format!("COPY {} FROM STDIN{}", self.stage(stage), with(format)),
            Query::Delete(stage) => {
                format!("DELETE FROM {table} AS t USING {} AS s WHERE {}", self.stage(stage), self.same_key())
            }
            Query::Update => {
                let set = self.set(|_, name| format!("{name} = s.{name}"))?;
                format!(
                    "UPDATE {table} AS t SET {set} FROM {} AS s WHERE {}",
                    self.stage(Stage::Rows),
                    self.same_key()
                )
            }
            Query::UpdatePartials => {
                let mask = self.mask();
                let set = self.set(|place, name| {
                    format!(
                        "{name} = CASE pg_catalog.get_bit(s.{mask}, {place}) WHEN 1 THEN t.{name} ELSE s.{name} END"
                    )
                })?;
                let stage = self.stage(Stage::Partials);
                format!("UPDATE {table} AS t SET {set} FROM {stage} AS s WHERE {}", self.same_key())
            }
            Query::InsertMissing => {
                let values: Vec<String> = self.names().iter().map(|name| format!("s.{name}")).collect();
                format!(
                    "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS s \
                     WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {})",
                    self.names().join(", "),
                    values.join(", "),
                    self.stage(Stage::Rows),
                    self.same_key()
                )
            }
            // Without a join of the two, which the session's settings would have done by nested loops: rows that are wanted
            // are found by a hashed subplan, and counted among those that are there.
            Query::DeleteSame => {
                let (staged, there) = (self.whole_row("s"), self.whole_row("r"));
                format!(
                    "WITH wanted AS MATERIALIZED (SELECT {staged} AS row FROM {} AS s) \
                     DELETE FROM {table} AS t USING ( \
                       SELECT n.part, n.place FROM ( \
                         SELECT a.part, a.place, \
                                pg_catalog.row_number() OVER (PARTITION BY a.row, a.place IS NULL) AS number, \
                                pg_catalog.count(*) FILTER (WHERE a.place IS NULL) OVER (PARTITION BY a.row) AS times \
                         FROM (SELECT o.part, o.place, o.row \
                               FROM (SELECT r.tableoid AS part, r.ctid AS place, {there} AS row FROM {table} AS r \
                                     OFFSET 0) AS o \
                               WHERE (o.row IN (SELECT w.row FROM wanted AS w)) IS TRUE \
                               UNION ALL SELECT NULL::pg_catalog.oid, NULL::pg_catalog.tid, w.row FROM wanted AS w) AS a) \
                         AS n \
                       WHERE n.place IS NOT NULL AND n.number <= n.times) AS that \
                     WHERE {IS_THAT_ROW}",
                    self.stage(Stage::Rows)
                )
            }
            Query::DeleteOne => {
                format!("DELETE FROM {table} AS t USING {} WHERE {IS_THAT_ROW}", self.one_row(1))
            }
            Query::UpdateOne => {
                let set: Vec<String> = self
                    .settable()
                    .enumerate()
                    .map(|(number, (_, name))| format!("{name} = ${}", number + 1))
                    .collect();
                if set.is_empty() {
                    return None;
                }
                let one = self.one_row(set.len() + 1);
                format!("UPDATE {table} AS t SET {} FROM {one} WHERE {IS_THAT_ROW}", set.join(", "))
            }
        })
    }

    /// Sets the columns at `places` of the row with the key: parameters are their values, then the key's.
    pub(crate) fn update_by_key(&self, places: &[usize]) -> Option<String> {
        let set: Vec<String> = places
            .iter()
            .filter_map(|&place| self.columns.get(place))
            .enumerate()
            .map(|(number, column)| format!("{} = ${}", column.name, number + 1))
            .collect();
        let key = self.has_key_at(places.len() + 1);
        if set.is_empty() || key.is_empty() {
            return None;
        }
        Some(format!("UPDATE {} AS t SET {} WHERE {key}", self.table, set.join(", ")))
    }

    /// Removes the row with a key, unless another key is the same: parameters are the one and the other.
    pub(crate) fn delete_other_key(&self) -> Option<String> {
        let (key, other) = (self.has_key_at(1), self.has_key_at(self.key.len() + 1));
        (!key.is_empty()).then(|| format!("DELETE FROM {} AS t WHERE {key} AND NOT ({other})", self.table))
    }

    /// Whether a row has the key whose values are the parameters from `first` on.
    fn has_key_at(&self, first: usize) -> String {
        let parts = self.key.iter().enumerate().filter_map(|(number, key)| {
            let column = self.columns.get(key.column)?;
            let KeyColumn { equals, cast, .. } = key;
            Some(format!("t.{}{cast} {equals} ${}{cast}", column.name, first + number))
        });
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// The name of the mask column: one that no column has.
    fn mask(&self) -> String {
        let mut name = "unchanged".to_owned();
        while self.columns.iter().any(|column| column.name == ident(&name)) {
            name.push('_');
        }
        name
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    /// Columns that can be set, with their places.
    fn settable(&self) -> impl Iterator<Item = (usize, &str)> {
        let places = self.columns.iter().enumerate();
        places.filter(|(_, column)| column.can_be_set).map(|(place, column)| (place, column.name.as_str()))
    }

    /// The SET list of an update by key. The key itself is in it only where a key may be spelt in more than
    /// one way: setting it costs an entry in each index.
    fn set(&self, one: impl Fn(usize, &str) -> String) -> Option<String> {
        let with_key = !self.relation.key_text_is_identity;
        let is_key = |place: usize| self.columns.get(place).is_some_and(|column| column.is_key);
        let columns = self.settable().filter(|&(place, _)| with_key || !is_key(place));
        let list: Vec<String> = columns.map(|(place, name)| one(place, name)).collect();
        (!list.is_empty()).then(|| list.join(", "))
    }

    fn same_key(&self) -> String {
        let parts = self.key.iter().filter_map(|key| {
            let name = &self.columns.get(key.column)?.name;
            let KeyColumn { equals, cast, .. } = key;
            Some(format!("t.{name}{cast} {equals} s.{name}{cast}"))
        });
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// All columns as one text, in which NULL is another than the empty text. Texts are what is compared, see
    /// [`Target::one_row`].
    fn whole_row(&self, of: &str) -> String {
        let names: Vec<String> = self.names().iter().map(|name| format!("{of}.{name}")).collect();
        format!("(ROW({})::pg_catalog.text COLLATE pg_catalog.\"C\")", names.join(", "))
    }

    /// One row whose columns have the texts of the parameters from `first` on, NULL for NULL. Texts are what
    /// is compared, since not every type has an equality (`json`, `point`) and not every equality tells
    /// texts apart (`1.0 = 1.00`); where both agree the cheaper one is taken. The partition is part of where
    /// a row is: another one may have a row at the same place.
    fn one_row(&self, first: usize) -> String {
        let parts = self.columns.iter().enumerate().map(|(place, column)| {
            let (name, parameter) = (&column.name, place + first);
            if column.equality_is_by_text {
                format!("r.{name} IS NOT DISTINCT FROM ${parameter}")
            } else {
                format!(
                    "CASE WHEN r.{name} IS NOT DISTINCT FROM NULL THEN NULL \
                     ELSE pg_catalog.format('%s', r.{name}) COLLATE pg_catalog.\"C\" END \
                     IS NOT DISTINCT FROM ${parameter}::pg_catalog.text"
                )
            }
        });
        let same = parts.collect::<Vec<_>>().join(" AND ");
        let table = &self.table;
        let same = if same.is_empty() { "true".to_owned() } else { same };
        format!("(SELECT r.tableoid AS part, r.ctid AS place FROM {table} AS r WHERE {same} LIMIT 1) AS that")
    }
}

const IS_THAT_ROW: &str = "t.ctid = that.place AND t.tableoid = that.part";
