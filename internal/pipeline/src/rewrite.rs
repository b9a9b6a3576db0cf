//! Whether a change of a table's schema may have changed its rows in a way that the stream does not tell.

use replicator_types::{Column, Relation, oid};

/// What has to be done about a table whose rows may have been computed anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rewrite {
    /// It is copied again, over the rows that are there.
    Over,
    /// It is emptied and copied again: what the sinks have may not fit the new version, whose types or key nothing
    /// leads to from the old one's values.
    Anew,
    /// The same, since it is not known which of its columns its changes are of ([`Relation::is_guess`]).
    Guess,
}

/// What `ALTER TABLE` may have done to the rows between two versions. A column whose type changed, other than to a wider
/// one of the same sort, may have been computed anew (`USING`); a new column whose default differs from row to row was.
///
/// Source: <https://www.postgresql.org/docs/current/sql-altertable.html>, Notes.
pub fn rewrite_of(before: &Relation, after: &Relation) -> Option<Rewrite> {
    // Which columns those were is not known; a copy has been made for that.
    if before.is_guess {
        return None;
    }
    let known = |column: &Column| before.columns.iter().find(|known| known.attnum == column.attnum);
    let is_computed = |column: &Column| match known(column) {
        Some(known) => has_other_type(known, column),
        None => column.has_default && column.missing_text.is_none(),
    };
    let computed = || after.columns.iter().filter(|column| column.attnum != 0 && is_computed(column));
    computed().next()?;
    let is_over = |column: &Column| known(column).is_none() && !column.is_key;
    Some(if computed().all(is_over) { Rewrite::Over } else { Rewrite::Anew })
}

fn has_other_type(known: &Column, column: &Column) -> bool {
    let (from, to) = (known.base_type_oid, column.base_type_oid);
    from != to && !is_widening(from, to)
}

fn is_widening(from: u32, to: u32) -> bool {
    matches!(
        (from, to),
        (oid::INT2, oid::INT4 | oid::INT8 | oid::NUMERIC)
            | (oid::INT4, oid::INT8 | oid::NUMERIC)
            | (oid::INT8, oid::NUMERIC)
            | (oid::VARCHAR | oid::NAME, oid::TEXT | oid::VARCHAR)
            | (oid::TEXT, oid::VARCHAR)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(columns: Vec<Column>) -> Relation {
        Relation { oid: 1, columns, ..Relation::message() }
    }

    fn column(attnum: i16, base_type_oid: u32) -> Column {
        Column { attnum, base_type_oid, type_oid: base_type_oid, ..Column::default() }
    }

    #[test]
    fn a_table_is_copied_again_when_its_rows_may_have_been_computed_anew() {
        let before = relation(vec![column(1, oid::INT4), column(2, oid::TEXT)]);
        let of = |columns| rewrite_of(&before, &relation(columns));
        assert_eq!(of(vec![column(1, oid::INT8), column(2, oid::TEXT)]), None, "wider");
        assert_eq!(of(vec![column(1, oid::TEXT), column(2, oid::TEXT)]), Some(Rewrite::Anew), "another type");
        assert_eq!(of(vec![column(1, oid::INT4)]), None, "dropped");
        assert_eq!(of(vec![column(1, oid::INT4), column(2, oid::TEXT), column(3, oid::INT4)]), None, "added");
        let volatile = Column { has_default: true, ..column(3, oid::UUID) };
        let added = |column: &Column| of(vec![super::tests::column(1, oid::INT4), column.clone()]);
        assert_eq!(added(&volatile), Some(Rewrite::Over));
        assert_eq!(added(&Column { missing_text: Some("5".into()), ..volatile.clone() }), None);
        assert_eq!(
            added(&Column { is_key: true, ..volatile }),
            Some(Rewrite::Anew),
            "nothing has the new key"
        );
    }
}
