//! Sets of blocks, and what is left of a table to be read.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Blocks, as ranges that do not touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl From<&[(u32, u32)]> for Ranges {
    fn from(ranges: &[(u32, u32)]) -> Self {
        let mut all = Self::default();
        ranges.iter().for_each(|(from, to)| all.add(*from..*to));
        all
    }
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.0.iter().map(|(from, to)| u64::from(to.saturating_sub(*from))).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u32>> {
        self.0.iter().map(|(from, to)| *from..*to)
    }

    /// Adds blocks; what touches becomes one range.
    pub(crate) fn add(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let (mut from, mut to) = (range.start, range.end);
        self.0.retain(|(f, t)| {
            let apart = *t < from || to < *f;
            if !apart {
                (from, to) = (from.min(*f), to.max(*t));
            }
            apart
        });
        let at = self.0.partition_point(|(f, _)| *f < from);
        self.0.insert(at, (from, to));
    }

    /// Blocks that both have.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for a in self.iter() {
            for b in other.iter() {
                both.add(a.start.max(b.start)..a.end.min(b.end));
            }
        }
        both
    }

    /// What is left of the blocks before `blocks`, in pieces of at most `blocks_max`. At least one piece, and the
    /// last one reaches the end, unless nothing is left: blocks that were added since are read with the last.
    pub(crate) fn left(&self, blocks: u32, blocks_max: u32) -> Vec<Range<u32>> {
        let mut left = Vec::new();
        let mut at = 0;
        for done in self.iter().chain(std::iter::once(blocks..blocks)) {
            let end = done.start.min(blocks);
            while at < end {
                let to = at.saturating_add(blocks_max.max(1)).min(end);
                left.push(at..to);
                at = to;
            }
            at = at.max(done.end);
        }
        if blocks == 0 && self.is_empty() {
            left.push(0..0);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_done_and_what_is_left_are_all_blocks_and_none_twice(
            done in prop::collection::vec((0_u32..60, 0_u32..20), 0..8),
            blocks in 0_u32..70,
            blocks_max in 1_u32..9,
        ) {
            let mut ranges = Ranges::default();
            for (from, length) in &done {
                ranges.add(*from..from + length);
            }
            let is_done = |block: u32| done.iter().any(|(from, length)| (*from..from + length).contains(&block));
            let left = ranges.left(blocks, blocks_max);
            for block in 0..blocks {
                let times = left.iter().filter(|range| range.contains(&block)).count();
                prop_assert_eq!(times, usize::from(!is_done(block)), "block {}", block);
                prop_assert_eq!(ranges.iter().any(|range| range.contains(&block)), is_done(block));
            }
            prop_assert!(left.iter().all(|range| range.len() <= blocks_max as usize && range.end <= blocks));
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges that touch are one");
        }
    }

    #[test]
    fn an_empty_table_is_looked_at_once() {
        assert_eq!(Ranges::default().left(0, 8), vec![Range { start: 0, end: 0 }]);
    }

    #[test]
    fn blocks_that_two_have_are_told() {
        let a = Ranges::from(&[(0, 4), (6, 10)][..]);
        let b = Ranges::from(&[(2, 7), (9, 20)][..]);
        assert_eq!(a.intersection(&b), Ranges::from(&[(2, 4), (6, 7), (9, 10)][..]));
    }
}
