//! Which type a column gets, for who writes it down: `docs/types.md`.

use crate::types::wanted;
use replicator_config::ArrayColumns;
use replicator_types::Column;

/// The type, as ClickHouse spells it, that a new table's column gets for `column`. `nullable` says whether it is to
/// take NULL: in a mirror where the source allows it, in a history always, in a key never.
pub fn column_type(column: &Column, nullable: bool, arrays: ArrayColumns) -> String {
    wanted(column, nullable, arrays).to_string()
}
