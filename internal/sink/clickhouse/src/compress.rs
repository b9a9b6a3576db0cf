//! ClickHouse's framing of compressed data, which `decompress=1` tells the server to expect.
//!
//! ```text
//!   frame = checksum (16 bytes) · method 0x82 · compressed size (u32) · raw size (u32) · LZ4 block
//! ```
//! All numbers little-endian. The compressed size counts from the method byte; the checksum is
//! CityHash128 (of version 1.0.2, as ClickHouse has it) over the same bytes, high half first.
//!
//! The `clickhouse` crate has the same thing, but hands out what it compressed as a value that can be
//! sent only once, and a write must be able to send again.
//!
//! Source: <https://clickhouse.com/docs/native-protocol/basics#compressed-blocks>.

use bytes::Bytes;

/// Raw bytes a frame. ClickHouse's own clients use `max_compress_block_size`, 1 MiB; LZ4 looks back
/// 64 KiB, so that larger frames gain nothing.
const FRAME_RAW_BYTES: usize = 256 << 10;
/// Pieces at least this long are compressed where they lie; shorter ones are gathered first.
const DIRECT_BYTES: usize = 32 << 10;

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_LZ4: u8 = 0x82;

/// Compresses what is written to it, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    gathered: Vec<u8>,
    frames: Vec<u8>,
    raw_bytes: usize,
    digest: u128,
    /// What the last body came to, so that the next does not grow step by step.
    last_bytes: usize,
}

/// A request body, compressed.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    /// The frames.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes before they were compressed.
    pub(crate) raw_bytes: usize,
    /// Digest of the content: of all frames' checksums.
    pub(crate) digest: u128,
}

impl Body {
    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Has `next` follow it.
    pub(crate) fn join(&mut self, next: Self) {
        self.pieces.extend(next.pieces);
        self.raw_bytes += next.raw_bytes;
        self.digest = self.digest.rotate_left(1) ^ next.digest;
    }
}

impl FrameWriter {
    /// Adds `data`.
    pub(crate) fn write(&mut self, mut data: &[u8]) {
        if data.len() >= DIRECT_BYTES {
            self.flush();
            while data.len() >= DIRECT_BYTES {
                let (frame, rest) = data.split_at(data.len().min(FRAME_RAW_BYTES));
                self.compress(frame);
                data = rest;
            }
        }
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= FRAME_RAW_BYTES {
            self.flush();
        }
    }

    /// The writer without what was written since the last [`FrameWriter::finish`].
    pub(crate) fn emptied(mut self) -> Self {
        self.gathered.clear();
        self.frames.clear();
        self.raw_bytes = 0;
        self.digest = 0;
        self
    }

    /// The body of everything written since the last call.
    pub(crate) fn finish(&mut self) -> Body {
        self.flush();
        self.last_bytes = self.frames.len();
        let mut frames = std::mem::take(&mut self.frames);
        if frames.capacity() - frames.len() > frames.len() / 4 {
            frames.shrink_to_fit();
        }
        let pieces = vec![Bytes::from(frames)];
        let raw_bytes = std::mem::take(&mut self.raw_bytes);
        let digest = std::mem::take(&mut self.digest);
        Body { pieces, raw_bytes, digest }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.compress(&gathered);
            self.gathered = gathered;
            self.gathered.clear();
        }
    }

    fn compress(&mut self, raw: &[u8]) {
        let start = self.frames.len();
        if start == 0 {
            self.frames.reserve(self.last_bytes + self.last_bytes / 8 + FRAME_RAW_BYTES);
        }
        let header = start + CHECKSUM_BYTES;
        let room = lz4_flex::block::get_maximum_output_size(raw.len());
        self.frames.resize(header + HEADER_BYTES + room, 0);
        let (_, frame) = self.frames.split_at_mut(header);
        let (_, block) = frame.split_at_mut(HEADER_BYTES);
        // Fails only when the output is too small, and it is as large as the crate asks for.
        let Ok(compressed) = lz4_flex::block::compress_into(raw, block) else {
            unreachable!("the buffer has the largest size that LZ4 can need")
        };
        // Both fit: a frame is at most FRAME_RAW_BYTES and what LZ4 adds.
        let sizes = ((compressed + HEADER_BYTES) as u32, raw.len() as u32);
        frame[0] = METHOD_LZ4;
        frame[1..5].copy_from_slice(&sizes.0.to_le_bytes());
        frame[5..9].copy_from_slice(&sizes.1.to_le_bytes());
        self.frames.truncate(header + HEADER_BYTES + compressed);
        let (_, frame) = self.frames.split_at(header);
        let checksum = cityhash_rs::cityhash_102_128(frame).rotate_left(64);
        self.frames[start..header].copy_from_slice(&checksum.to_le_bytes());
        self.raw_bytes += raw.len();
        self.digest = self.digest.rotate_left(1) ^ checksum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The model: reads frames as the manual describes them.
    fn decompress(mut frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !frames.is_empty() {
            let (checksum, rest) = frames.split_at(16);
            let size = u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
            let raw_size = u32::from_le_bytes(rest[5..9].try_into().unwrap()) as usize;
            let (frame, rest) = rest.split_at(size);
            let hash = cityhash_rs::cityhash_102_128(frame);
            assert_eq!(checksum[..8], ((hash >> 64) as u64).to_le_bytes());
            assert_eq!(checksum[8..], (hash as u64).to_le_bytes());
            assert_eq!(frame[0], 0x82);
            let raw = lz4_flex::block::decompress(&frame[9..], raw_size).unwrap();
            assert_eq!(raw.len(), raw_size);
            out.extend_from_slice(&raw);
            frames = rest;
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_is_written_in_any_pieces_comes_out(pieces in prop::collection::vec((0_usize..700_000, any::<u8>()), 0..6)) {
            let mut writer = FrameWriter::default();
            for _ in 0..2 {
                let mut expected = Vec::new();
                for &(length, seed) in &pieces {
                    let piece: Vec<u8> = (0..length).map(|i| ((i as u64 * u64::from(seed) * 0x9e37_79b9) >> 7) as u8).collect();
                    writer.write(&piece);
                    expected.extend_from_slice(&piece);
                }
                let body = writer.finish();
                prop_assert!(decompress(&body.pieces.concat()) == expected);
            }
        }
    }

    #[test]
    fn bodies_that_differ_have_different_digests() {
        let digest = |pieces: &[&[u8]]| {
            let mut writer = FrameWriter::default();
            pieces.iter().for_each(|piece| writer.write(piece));
            writer.finish().digest
        };
        assert_eq!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]), "pieces do not matter");
        assert_ne!(digest(&[b"abc"]), digest(&[b"abd"]));
        let (one, two) = (vec![1; DIRECT_BYTES], vec![2; DIRECT_BYTES]);
        assert_ne!(digest(&[&one, &two]), digest(&[&two, &one]));
    }
}
