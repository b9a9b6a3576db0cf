use super::column::{Column, Problem};
use super::{push_string, push_varint};
use crate::compress::{Body, FrameWriter};
use replicator_types::{POSTGRES_EPOCH_UNIX_MICROS, Position, TransactionMeta, Value};

/// What a row of a block is, beside its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowMark<'a> {
    /// Its version.
    pub(crate) position: Position,
    /// Its transaction, for the commit time.
    pub(crate) transaction: &'a TransactionMeta,
    /// The value of the mark column: 1 for a deleted row of a mirror, the operation of a history.
    pub(crate) mark: u8,
}

/// The rows of one table in one batch, column by column, with the replicator's own columns.
#[derive(Debug)]
pub(crate) struct Block {
    columns: Vec<Column>,
    /// Name and type of the one-byte column: `_deleted` or `_op`.
    mark_column: (&'static str, &'static str),
    marks: Vec<u8>,
    versions: Vec<u8>,
    commit_times: Vec<u8>,
    header: Vec<u8>,
}

/// A row that could not be added: the column's index, and why.
pub(crate) type RowProblem = (usize, Problem);

/// Name of the version column.
pub(crate) const VERSION: &str = "_version";
/// Name of the commit time column.
pub(crate) const COMMIT_TIME: &str = "_commit_time";

impl Block {
    /// An empty block of those columns.
    pub(crate) fn new(columns: Vec<Column>, mark_column: (&'static str, &'static str)) -> Self {
        Self {
            columns,
            mark_column,
            marks: Vec::new(),
            versions: Vec::new(),
            commit_times: Vec::new(),
            header: Vec::new(),
        }
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn rows(&self) -> usize {
        self.marks.len()
    }

    /// Empties it; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Column::clear);
        self.marks.clear();
        self.versions.clear();
        self.commit_times.clear();
    }

    /// Adds a row of `values`, in column order; what is missing at the end is NULL.
    pub(crate) fn push_row<'v>(
        &mut self,
        mut values: impl Iterator<Item = Value<'v>>,
        mark: RowMark<'_>,
    ) -> Result<(), RowProblem> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.push(values.next().unwrap_or(Value::Null)).map_err(|problem| (index, problem))?;
        }
        self.push_mark(mark);
        Ok(())
    }

    /// Adds a row of which only those columns count for which `known` says so; the others get a default.
    pub(crate) fn push_partial<'v>(
        &mut self,
        mut values: impl Iterator<Item = Value<'v>>,
        known: impl Fn(usize) -> bool,
        mark: RowMark<'_>,
    ) -> Result<(), RowProblem> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let value = values.next().unwrap_or(Value::Null);
            if known(index) {
                column.push(value).map_err(|problem| (index, problem))?;
            } else {
                column.push_default();
            }
        }
        self.push_mark(mark);
        Ok(())
    }

    fn push_mark(&mut self, mark: RowMark<'_>) {
        self.marks.push(mark.mark);
        self.versions.extend_from_slice(&mark.position.as_u128().to_le_bytes());
        let micros = mark.transaction.commit_time_us.saturating_add(POSTGRES_EPOCH_UNIX_MICROS);
        self.commit_times.extend_from_slice(&micros.to_le_bytes());
    }

    /// The block as a compressed request body.
    pub(crate) fn body(&mut self, out: &mut FrameWriter) -> Body {
        let own: [(&str, &str, &[u8]); 3] = [
            (VERSION, "UInt128", &self.versions),
            (self.mark_column.0, self.mark_column.1, &self.marks),
            (COMMIT_TIME, "DateTime64(6, 'UTC')", &self.commit_times),
        ];
        self.header.clear();
        let written = self.columns.iter().filter(|column| column.is_written());
        push_varint((written.clone().count() + own.len()) as u64, &mut self.header);
        push_varint(self.marks.len() as u64, &mut self.header);
        out.write(&self.header);
        for column in written {
            column.write(&mut self.header, out);
        }
        for (name, type_name, data) in own {
            self.header.clear();
            push_string(name.as_bytes(), &mut self.header);
            push_string(type_name.as_bytes(), &mut self.header);
            out.write(&self.header);
            out.write(data);
        }
        out.finish()
    }
}

/// Columns of the same length as a compressed request body.
pub(crate) fn body_of(columns: &[Column], out: &mut FrameWriter) -> Body {
    let mut header = Vec::new();
    push_varint(columns.len() as u64, &mut header);
    push_varint(columns.first().map_or(0, Column::rows) as u64, &mut header);
    out.write(&header);
    for column in columns {
        column.write(&mut header, out);
    }
    out.finish()
}

/// A whole small block, uncompressed: `numbers` as a UInt32 column of that name, then `columns`.
pub(crate) fn numbered_block(number_column: &str, numbers: &[u32], columns: &[Column]) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(columns.len() as u64 + 1, &mut out);
    push_varint(numbers.len() as u64, &mut out);
    push_string(number_column.as_bytes(), &mut out);
    push_string(b"UInt32", &mut out);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for column in columns {
        push_string(column.name().as_bytes(), &mut out);
        push_string(column.wire_type().to_string().as_bytes(), &mut out);
        column.write_data(&mut |piece| out.extend_from_slice(piece));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Rules;
    use crate::types::Type;
    use replicator_types::{Lsn, TxnId};

    #[test]
    fn a_block_is_its_header_and_its_columns_with_our_own_behind() {
        let column = |name, of| {
            Column::new(name, &Type::parse(of), pgvalue::Type::TextOnly, false, Rules::STRICT).unwrap()
        };
        let mut block =
            Block::new(vec![column("k", "Int16"), column("v", "Nullable(String)")], ("_deleted", "UInt8"));
        let transaction = TransactionMeta {
            id: TxnId(1),
            commit_lsn: Lsn(2),
            commit_time_us: -POSTGRES_EPOCH_UNIX_MICROS,
            xid: 3,
        };
        let mark = |ordinal, mark| RowMark {
            position: Position { commit_lsn: Lsn(2), ordinal },
            transaction: &transaction,
            mark,
        };
        let key = [Value::Text(b"7"), Value::Text(b"x")];
        block.push_row(key.into_iter(), mark(0, 0)).unwrap();
        block.push_partial(key.into_iter(), |index| index == 0, mark(1, 1)).unwrap();
        assert_eq!(block.push_row([Value::Null].into_iter(), mark(2, 0)), Err((0, Problem::Null)));
        block.clear();
        block.push_row(key.into_iter(), mark(0, 0)).unwrap();
        block.push_partial(key.into_iter(), |index| index == 0, mark(1, 1)).unwrap();
        let body = block.body(&mut FrameWriter::default());
        let raw_bytes = u32::from_le_bytes(body.pieces[0][21..25].try_into().unwrap()) as usize;
        let raw = lz4_flex::block::decompress(&body.pieces[0][25..], raw_bytes).unwrap();
        let mut expected =
            b"\x05\x02\x01k\x05Int16\x07\0\x07\0\x01v\x10Nullable(String)\0\x01\x01x\0".to_vec();
        expected.extend_from_slice(b"\x08_version\x07UInt128");
        for ordinal in [0_u64, 1] {
            expected.extend_from_slice(&ordinal.to_le_bytes());
            expected.extend_from_slice(&2_u64.to_le_bytes());
        }
        expected.extend_from_slice(b"\x08_deleted\x05UInt8\0\x01\x0c_commit_time\x14DateTime64(6, 'UTC')");
        expected.extend_from_slice(&[0; 16]);
        assert_eq!(raw, expected);
    }
}
