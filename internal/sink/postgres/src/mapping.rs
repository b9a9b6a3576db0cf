//! How values reach the target, for who writes it down: `docs/types.md`.

use crate::passage::Passage;
use replicator_types::{Column, ColumnKind};

/// Whether values of `column` go into a column of the same type in binary form, byte for byte, where they come in it.
pub fn passes_unread(column: &Column) -> bool {
    Passage::of(column, column.base_type_oid, column.kind == ColumnKind::Enum) != Passage::Closed
}
