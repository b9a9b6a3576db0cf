//! What is promised: the least that a reader has to come to, beside a yardstick of the same run.

use crate::drain::Reader;
use crate::workload::Workload;

/// The yardstick and the least ratio to it.
pub(crate) fn least(workload: Workload, reader: Reader) -> Option<(Reader, f64)> {
    use Workload::{W1, W2, W3, W4};
    let ratio = match (reader, workload) {
        (Reader::Blackhole, W1) => 2.2,
        (Reader::Blackhole, W2) => 2.0,
        (Reader::Blackhole, W3) => 1.2,
        (Reader::Blackhole, W4) => 1.0,
        (Reader::BlackholeUnix, W1) => 1.0,
        (Reader::ClickHouse, W1) => 1.5,
        (Reader::ClickHouse, W2) => 1.2,
        (Reader::ClickHouse, W3) => 0.9,
        (Reader::ClickHouse, W4) => 0.5,
        (Reader::Postgres, W1 | W3) => 1.1,
        (Reader::Postgres, W2) => 1.4,
        (Reader::Postgres, W4) => 1.5,
        (Reader::Archive, W1) => 0.6,
        _ => return None,
    };
    Some((reader.yardstick(), ratio))
}

/// The most that the replicator may take: processor time in µs a change, and resident memory in MB.
pub(crate) fn most(workload: Workload, reader: Reader) -> Option<(f64, u64)> {
    match (reader, workload) {
        (Reader::Blackhole, Workload::W1) => Some((1.0, 64)),
        (Reader::ClickHouse, Workload::W1) => Some((2.5, 200)),
        _ => None,
    }
}
