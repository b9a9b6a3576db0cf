//! Timelines: whether a server has all that was read from another copy of its cluster.
//!
//! ```text
//!   timeline 1  ──────────┬────────── what the old primary wrote on its own: no server has it any more
//!   timeline 2            └─────────────────────────▶ the promoted standby
//!                         end of 1 = where 2 begins
//! ```
//! Every promotion begins a timeline. Positions of two timelines are comparable up to where they part; from there on the
//! same LSN is another record. So what was read on an earlier timeline has to end before the present one begins.
//!
//! Sources: <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>, `TIMELINE_HISTORY` in
//! <https://www.postgresql.org/docs/current/protocol-replication.html>, for the file's lines Postgres'
//! `src/backend/access/transam/timeline.c`.

use crate::SourceError;
use crate::error::anew_remedy;
use crate::raw::RawConnection;
use replicator_types::Lsn;
use std::collections::BTreeMap;

/// A server's timeline, and those that it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timelines {
    current: u32,
    /// Where each earlier one ended.
    ends: BTreeMap<u32, Lsn>,
}

impl Timelines {
    /// Asks the server, whose timeline is `current`.
    pub(crate) async fn read(connection: &mut RawConnection, current: u32) -> Result<Self, SourceError> {
        if current <= 1 {
            return Ok(Self { current, ends: BTreeMap::new() });
        }
        let doing = format!("asking the source for the history of its timeline {current}");
        let rows = connection.query(&format!("TIMELINE_HISTORY {current}")).await;
        let rows = rows.map_err(|error| error.into_source_error(&doing))?;
        // filename, content
        let content = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
        Self::parse(current, &content.unwrap_or_default())
            .ok_or_else(|| SourceError::retry(format!("{doing}: the answer was not understood")))
    }

    /// Lines of timeline, LSN of its end, and why, between tabs; `#` begins a comment.
    pub(crate) fn parse(current: u32, content: &str) -> Option<Self> {
        let mut ends = BTreeMap::new();
        for line in content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut fields = line.split_whitespace();
            ends.insert(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        }
        Some(Self { current, ends })
    }

    /// The server's own.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Up to where of a position of `timeline` this server has the same.
    pub fn in_common(&self, timeline: u32, lsn: Lsn) -> Lsn {
        if timeline == self.current {
            return lsn;
        }
        self.ends.get(&timeline).map_or(Lsn::ZERO, |end| lsn.min(*end))
    }

    /// Whether the server has what was read on `timeline` up to `reach`, the start of a commit record. `who` has read
    /// it.
    ///
    /// # Errors
    /// It has not: it is an earlier primary, or what was read there was lost in the failover. For a person.
    pub fn verify(&self, timeline: u32, reach: Lsn, who: &str) -> Result<(), SourceError> {
        if timeline == self.current {
            return Ok(());
        }
        let Some(&end) = self.ends.get(&timeline) else {
            return Err(SourceError::halt(format!(
                "the source is on timeline {}, and {who} followed timeline {timeline}, which it does not come from: it is \
                 an earlier primary that was started again, or another branch of the cluster. Point source.url at the \
                 server that was promoted last",
                self.current
            )));
        };
        if reach < end {
            return Ok(());
        }
        Err(SourceError::halt(format!(
            "the source is a promoted standby (timeline {}, which parted from timeline {timeline} at {end}), and {who} had \
             changes from up to {reach}: what was committed in between was lost in the failover and is in the sinks all \
             the same. {}; on PostgreSQL 17 and later synchronized_standby_slots on the primary keeps this from happening",
            self.current,
            anew_remedy()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn third() -> Timelines {
        let text =
            "1\t0/3000158\tno recovery target specified\n\n# a comment\n2\t0/5000000\tbefore 2026-01-01\n";
        Timelines::parse(3, text).unwrap()
    }

    #[test]
    fn what_was_read_before_timelines_parted_is_there_and_what_was_read_behind_is_not() {
        let timelines = third();
        assert!(timelines.verify(3, Lsn(u64::MAX), "this run").is_ok());
        assert!(timelines.verify(1, Lsn(0x300_0157), "this run").is_ok());
        assert!(timelines.verify(2, Lsn(0x4FF_FFFF), "this run").is_ok());
        let lost = timelines.verify(1, Lsn(0x300_0158), "sink copy").unwrap_err().to_string();
        assert!(
            lost.contains("0/3000158") && lost.contains("sink copy") && lost.contains("source.slot"),
            "{lost}"
        );
    }

    #[test]
    fn a_position_behind_where_timelines_parted_is_in_common_up_to_there() {
        let common = |timeline, lsn| third().in_common(timeline, Lsn(lsn));
        assert_eq!(common(3, 0x900_0000), Lsn(0x900_0000));
        assert_eq!([common(1, 0x100), common(1, 0x900_0000)], [Lsn(0x100), Lsn(0x300_0158)]);
        assert_eq!(common(7, 0x100), Lsn::ZERO);
    }

    #[test]
    fn an_earlier_primary_is_refused() {
        let first = Timelines::parse(1, "").unwrap();
        let text = first.verify(2, Lsn(0), "this run").unwrap_err().to_string();
        assert!(text.contains("earlier primary"), "{text}");
    }

    #[test]
    fn a_history_that_cannot_be_read_is_none() {
        for text in ["1", "x\t0/1", "1\t01", "-1 0/1"] {
            assert_eq!(Timelines::parse(2, text), None, "{text}");
        }
    }
}
