use replicator_types::Lsn;

/// One CopyData message of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// `w`, XLogData: a message of the output plugin.
    Data {
        /// Place of the message in the WAL: where the change is, for a Commit the end of its record, and 0/0
        /// for a message that announces another (Relation, Type, the Begin before an Origin).
        start: Lsn,
        /// The same again: only physical replication tells the end of WAL here.
        wal_end: Lsn,
        /// The server's clock, microseconds since 2000-01-01 UTC.
        sent_us: i64,
        /// The plugin's bytes, for [`crate::Decoder::decode`].
        message: &'a [u8],
    },
    /// `k`, primary keepalive.
    Keepalive {
        /// The last WAL the server has *sent*, or passed over because nothing in it is published. It says
        /// nothing about data that was sent before it and is still on its way through us.
        wal_end: Lsn,
        /// The server's clock, microseconds since 2000-01-01 UTC.
        sent_us: i64,
        /// Whether the server wants a status update at once, or will end the connection.
        reply_requested: bool,
    },
}

/// The bytes are not CopyData messages of a replication stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// They end inside the named part.
    #[error("replication stream ends inside the {0}")]
    Truncated(&'static str),
    /// A message that has no place there.
    #[error("unexpected message 0x{0:02x} in the replication stream")]
    Unexpected(u8),
    /// A length that cannot be.
    #[error("replication stream message has impossible length {0}")]
    Length(i32),
}

impl<'a> Frame<'a> {
    /// Reads the body of a CopyData message (what follows its `d` and length).
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = body.split_first().ok_or(FrameError::Truncated("message kind"))?;
        match kind {
            b'w' => {
                let (start, rest) = take_u64(rest, "XLogData start")?;
                let (wal_end, rest) = take_u64(rest, "XLogData end")?;
                let (sent, message) = take_u64(rest, "XLogData time")?;
                Ok(Self::Data { start: Lsn(start), wal_end: Lsn(wal_end), sent_us: sent as i64, message })
            }
            b'k' => {
                let (wal_end, rest) = take_u64(rest, "keepalive end")?;
                let (sent, rest) = take_u64(rest, "keepalive time")?;
                let (&reply, _) = rest.split_first().ok_or(FrameError::Truncated("keepalive reply flag"))?;
                Ok(Self::Keepalive {
                    wal_end: Lsn(wal_end),
                    sent_us: sent as i64,
                    reply_requested: reply != 0,
                })
            }
            other => Err(FrameError::Unexpected(other)),
        }
    }
}

fn take_u64<'a>(bytes: &'a [u8], part: &'static str) -> Result<(u64, &'a [u8]), FrameError> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(FrameError::Truncated(part))?;
    Ok((u64::from_be_bytes(*head), rest))
}

/// Iterates over whole CopyData messages lying one after the other, framing included, as the source hands
/// them on.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Over `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn split(&mut self) -> Result<Frame<'a>, FrameError> {
        let (&kind, rest) = self.rest.split_first().ok_or(FrameError::Truncated("message type"))?;
        if kind != b'd' {
            return Err(FrameError::Unexpected(kind));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated("message length"))?;
        let length = i32::from_be_bytes(*length);
        // The length counts its own four bytes.
        let size = length
            .checked_sub(4)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or(FrameError::Length(length))?;
        let (body, rest) = rest.split_at_checked(size).ok_or(FrameError::Truncated("message body"))?;
        let frame = Frame::parse(body)?;
        self.rest = rest;
        Ok(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.split();
        if frame.is_err() {
            // After a wrong length there is no next message to be found.
            self.rest = &[];
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_cannot_be_ends_the_stream() {
        for length in [i32::MIN, -1, 0, 3] {
            let bytes = [b"d", &length.to_be_bytes()[..], b"k and more"].concat();
            let frames: Vec<_> = Frames::new(&bytes).collect();
            assert_eq!(frames, [Err(FrameError::Length(length))]);
        }
    }

    #[test]
    fn anything_but_data_and_keepalives_is_unexpected() {
        assert_eq!(Frames::new(b"c\0\0\0\x04").next(), Some(Err(FrameError::Unexpected(b'c'))));
        assert_eq!(Frames::new(b"d\0\0\0\x05r").next(), Some(Err(FrameError::Unexpected(b'r'))));
        assert_eq!(Frames::new(b"d\0\0\0\x04").next(), Some(Err(FrameError::Truncated("message kind"))));
    }

    #[test]
    fn a_keepalive_tells_whether_it_wants_an_answer() {
        for (flag, wanted) in [(0, false), (1, true)] {
            let body = [&b"k"[..], &7_u64.to_be_bytes(), &8_i64.to_be_bytes(), &[flag]].concat();
            let keepalive = Frame::Keepalive { wal_end: Lsn(7), sent_us: 8, reply_requested: wanted };
            assert_eq!(Frame::parse(&body), Ok(keepalive));
        }
    }
}
