//! The hash that sends a row's changes to a shard.
//!
//! The Postgres sink's checkpoint says "shard 1 of 4 has applied everything up to here", so the hash is
//! part of a stored format: it must not change between versions of this program or between machines.
//! It is FNV-like in structure but works on 8 bytes a step, and ends with a full avalanche (the finalizer
//! of MurmurHash3, public domain), so that the remainder by a small shard count is even.

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes a key, value by value.
#[derive(Clone, Debug)]
pub struct KeyHasher(u64);

impl KeyHasher {
    /// A hasher for a key of the table with this oid-free `seed` (equal keys of different tables need
    /// not share a shard).
    pub fn new(seed: u64) -> Self {
        Self(SEED ^ seed.wrapping_mul(MULTIPLIER))
    }

    /// Adds one value's bytes. The length is mixed in, so `("a", "bc")` differs from `("ab", "c")`.
    #[inline]
    pub fn value(&mut self, bytes: &[u8]) {
        let mut state = self.0 ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
            state ^= state >> 32;
        }
        let mut tail = 0_u64;
        for &byte in rest {
            tail = tail << 8 | u64::from(byte);
        }
        state = (state ^ tail).wrapping_mul(MULTIPLIER);
        self.0 = state ^ state >> 32;
    }

    /// Adds a NULL, which differs from every value.
    #[inline]
    pub fn null(&mut self) {
        self.0 = (self.0 ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(MULTIPLIER);
        self.0 ^= self.0 >> 29;
    }

    /// The hash of what was added.
    #[inline]
    pub fn finish(&self) -> u64 {
        let mut h = self.0;
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ h >> 33
    }
}

/// The shard, out of `shards`, that a key with this hash belongs to.
///
/// Part of the stored format as the hash is.
#[inline]
pub fn shard_of(hash: u64, shards: u32) -> u32 {
    // `max(1)` keeps the function total; no caller configures 0 shards.
    (hash % u64::from(shards.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(values: &[Option<&str>]) -> u64 {
        let mut hasher = KeyHasher::new(7);
        for value in values {
            match value {
                Some(text) => hasher.value(text.as_bytes()),
                None => hasher.null(),
            }
        }
        hasher.finish()
    }

    #[test]
    fn the_hash_is_a_stored_format_and_does_not_change() {
        assert_eq!(hash(&[Some("1")]), 16740481145439802750);
        assert_eq!(hash(&[Some("0123456789abcdef!"), None]), 4033175596576270877);
    }

    #[test]
    fn values_do_not_run_together() {
        assert_ne!(hash(&[Some("a"), Some("bc")]), hash(&[Some("ab"), Some("c")]));
        assert_ne!(hash(&[None, Some("")]), hash(&[Some(""), None]));
        assert_ne!(hash(&[Some("")]), hash(&[None]));
        assert_ne!(hash(&[Some("\0")]), hash(&[Some("")]));
    }

    #[test]
    fn consecutive_keys_spread_evenly_over_any_number_of_shards() {
        for shards in 2..=8 {
            let mut counts = vec![0_u32; shards as usize];
            for n in 0..80_000 {
                counts[shard_of(hash(&[Some(&n.to_string())]), shards) as usize] += 1;
            }
            let even = 80_000 / shards;
            assert!(counts.iter().all(|c| c.abs_diff(even) < even / 20), "{shards}: {counts:?}");
        }
    }
}
