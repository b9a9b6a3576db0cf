//! What the lake's objects are called.
//!
//! | Path | |
//! |---|---|
//! | `cdc/{schema}/{table}/deltas/{seq}_{ts}.parquet` | changes, as they came |
//! | `cdc/{schema}/{table}/data.parquet` | the table, as of a bookmark |
//! | `cdc/{schema}/{table}/manifest.json` | what `data.parquet` holds |
//! | `cdc/{schema}/{table}/processed/{seq}_{ts}.parquet` | changes that `data.parquet` has |
//! | `cdc/{schema}/{table}/snapshots/{yyyy-mm-dd}.parquet`, `{yyyy-mm}.parquet` | the table, as of a day or month |
//! | `cdc/{schema}/{table}/snapshots/manifest.json` | what the snapshots hold |
//! | `cdc/{schema}/{table}/copy.json` | whether the table is being copied |
//!
//! `seq` is the bookmark of a file's first change, `ts` its commit time in milliseconds since 1970, so that names sort
//! as changes do. Bytes of a schema's or table's name other than ASCII letters, digits, `_` and `-` are `=` and two
//! hexadecimal digits; so is a first `.`.

use crate::bookmark;
use replicator_store::CommitTime;
use replicator_types::Position;

/// What is before all of the tables' folders.
pub const TABLES: &str = "cdc";

/// What a file of the lake ends with.
pub const SUFFIX: &str = ".parquet";

/// The folder of a table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableFolder(String);

impl TableFolder {
    /// Of the table `schema.name`.
    pub fn of(schema: &str, name: &str) -> Self {
        Self(format!("{TABLES}/{}/{}", escaped(schema), escaped(name)))
    }

    /// Of a path that begins with a table's folder.
    pub fn in_path(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix(TABLES)?.strip_prefix('/')?.split('/');
        let (schema, name) = (parts.next()?, parts.next()?);
        Some(Self(format!("{TABLES}/{schema}/{name}")))
    }

    /// `schema.table`, as the source calls them.
    pub fn table_name(&self) -> String {
        let names = self.0.strip_prefix(TABLES).unwrap_or(&self.0).trim_start_matches('/');
        let names: Vec<String> = names.split('/').map(unescaped).collect();
        names.join(".")
    }

    /// `cdc/{schema}/{table}`
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The folder of changes.
    pub fn deltas(&self) -> String {
        format!("{}/deltas", self.0)
    }

    /// The folder of changes that are folded.
    pub fn processed(&self) -> String {
        format!("{}/processed", self.0)
    }

    /// The table's state.
    pub fn data(&self) -> String {
        format!("{}/data.parquet", self.0)
    }

    /// The folder of snapshots.
    pub fn snapshots(&self) -> String {
        format!("{}/snapshots", self.0)
    }

    /// Which snapshots there are.
    pub fn snapshot_manifest(&self) -> String {
        format!("{}/snapshots/manifest.json", self.0)
    }

    /// What the table's state holds.
    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.0)
    }

    /// Whether the table is being copied.
    pub fn copy(&self) -> String {
        format!("{}/copy.json", self.0)
    }

    /// In a folder of this machine: what who folds the table locks.
    pub fn lock(&self) -> String {
        format!("{}/compaction.lock", self.0)
    }

    /// Where the delta file at `path` goes when it is folded.
    pub fn processed_path(&self, path: &str) -> String {
        format!("{}/{}", self.processed(), path.rsplit('/').next().unwrap_or(path))
    }

    /// A file of changes of which the first was committed at `time` and stands at `first`.
    pub fn delta(&self, first: Position, time: CommitTime) -> String {
        format!("{}/deltas/{}_{:015}{SUFFIX}", self.0, bookmark::text(first), time.millis())
    }
}

/// The position of the first change in a file of changes, by the file's path; `None` when it has no such name.
pub fn first_position(path: &str) -> Option<Position> {
    let (_, name) = path.rsplit_once('/')?;
    let (seq, ts) = name.strip_suffix(SUFFIX)?.split_once('_')?;
    let is_time = !ts.is_empty() && ts.bytes().all(|byte| byte.is_ascii_digit());
    if is_time { bookmark::parse(seq) } else { None }
}

fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            byte => out.push_str(&format!("={byte:02x}")),
        }
    }
    out
}

/// The inverse; what no name was escaped to stays as it is.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.split_at_checked(2).filter(|_| first == b'=');
        let byte = hex.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = byte.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use replicator_types::Lsn;
    use std::collections::BTreeSet;

    #[test]
    fn a_delta_is_named_by_its_first_change() {
        let folder = TableFolder::of("public", "orders");
        let first = Position { commit_lsn: Lsn(0x16_B374_D848), ordinal: 7 };
        let path = folder.delta(first, CommitTime::from_postgres_micros(0));
        assert_eq!(
            path,
            "cdc/public/orders/deltas/00000016b374d848-0000000000000007_000946684800000.parquet"
        );
        assert_eq!(first_position(&path), Some(first));
        assert_eq!(TableFolder::in_path(&path), Some(folder));
        assert_eq!(first_position("cdc/public/orders/data.parquet"), None);
    }

    #[test]
    fn a_name_with_a_slash_or_dots_stays_one_folder() {
        let folder = TableFolder::of("Ünï", "a/../b");
        assert_eq!(folder.path(), "cdc/=c3=9cn=c3=af/a=2f=2e=2e=2fb");
        assert_eq!(folder.table_name(), "Ünï.a/../b");
    }

    proptest! {
        #[test]
        fn tables_with_different_names_have_different_folders(names in proptest::collection::btree_set(("[a=./2f]{1,4}", "[a=./2f]{1,4}"), 1..20)) {
            let folders: BTreeSet<TableFolder> = names.iter().map(|(schema, name)| TableFolder::of(schema, name)).collect();
            prop_assert_eq!(folders.len(), names.len());
        }
    }
}
