//! Golden bytes: what real servers sent, kept so that the decoder is held against them and not against our
//! reading of the manual.
//!
//! ```text
//!   cargo run -p replicator-golden            servers ──▶ data/pg15.txt, …, and fuzz/seeds from them
//!   cargo run -p replicator-golden -- seeds   data/*.txt ──▶ ../fuzz/seeds
//!   cargo test -p replicator-golden           data/*.txt ──▶ pgoutput ──▶ what the scenario did
//! ```
//!
//! A line of `data/pg{version}.txt` is `scenario protocol hex`: one `pgoutput` message, without the header
//! of the frame it came in. A line of `data/pg{version}_frames.txt` is the same with a whole CopyData message,
//! keepalives among them. Lines of one scenario and protocol version are one stream, in its order.
//!
//! What was asked of the server follows from the protocol version alone:
//!
//! | version | options |
//! |---|---|
//! | 1 | `messages` |
//! | 2 | and `streaming 'on'` |
//! | 3 | and a two-phase slot |
//! | 4 | and `streaming 'parallel'` |
//!
//! and `binary` in the scenarios whose name ends so.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-logical-replication.html#PROTOCOL-LOGICAL-REPLICATION-PARAMS>.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Major versions that there are files of.
pub const SERVERS: [u32; 3] = [15, 17, 18];

/// One captured message or frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Golden {
    /// What was done at the server.
    pub scenario: String,
    /// Protocol version asked for, 1 to 4.
    pub protocol: u8,
    /// What the server sent.
    pub bytes: Vec<u8>,
}

/// The messages of one scenario under one protocol version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Major version of the server.
    pub server: u32,
    /// What was done at the server.
    pub scenario: String,
    /// Protocol version asked for, 1 to 4.
    pub protocol: u8,
    /// The messages in the order they came.
    pub messages: Vec<Vec<u8>>,
}

/// File of the messages of a server version.
pub fn messages_file(server: u32) -> PathBuf {
    data_dir().join(format!("pg{server}.txt"))
}

/// File of the frames of a server version.
pub fn frames_file(server: u32) -> PathBuf {
    data_dir().join(format!("pg{server}_frames.txt"))
}

fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Reads a file of golden bytes.
///
/// # Errors
/// When it cannot be read, or a line is not of the format; names file and line.
pub fn read(path: &Path) -> io::Result<Vec<Golden>> {
    let text =
        fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            parse_line(line).ok_or_else(|| {
                let place = format!("{}:{}: not `scenario protocol hex`", path.display(), index + 1);
                io::Error::new(io::ErrorKind::InvalidData, place)
            })
        })
        .collect()
}

/// Writes a file of golden bytes.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, golden: &[Golden]) -> io::Result<()> {
    let mut text = String::new();
    for Golden { scenario, protocol, bytes } in golden {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{scenario} {protocol} {}", to_hex(bytes));
    }
    fs::write(path, text)
}

/// The streams of every server version, from the committed files.
///
/// # Errors
/// As [`read`].
pub fn streams() -> io::Result<Vec<Stream>> {
    let mut streams: Vec<Stream> = Vec::new();
    for server in SERVERS {
        for Golden { scenario, protocol, bytes } in read(&messages_file(server))? {
            match streams.last_mut() {
                Some(last)
                    if last.server == server && last.scenario == scenario && last.protocol == protocol =>
                {
                    last.messages.push(bytes);
                }
                _ => streams.push(Stream { server, scenario, protocol, messages: vec![bytes] }),
            }
        }
    }
    Ok(streams)
}

impl Stream {
    /// A decoder for the start of it.
    pub fn decoder(&self) -> pgoutput::Decoder {
        pgoutput::Decoder::new(self.protocol >= 4)
    }
}

fn parse_line(line: &str) -> Option<Golden> {
    let mut words = line.split(' ');
    let golden = Golden {
        scenario: words.next().filter(|name| !name.is_empty())?.to_owned(),
        protocol: words.next()?.parse().ok()?,
        bytes: from_hex(words.next()?)?,
    };
    words.next().is_none().then_some(golden)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_what_was_written_to_it() {
        let dir = replicator_harness::scratch_dir("golden");
        let path = dir.join("golden.txt");
        let golden = vec![
            Golden { scenario: "a".into(), protocol: 1, bytes: (0..=255).collect() },
            Golden { scenario: "b_binary".into(), protocol: 4, bytes: vec![b'E'] },
        ];
        write(&path, &golden).unwrap();
        assert_eq!(read(&path).unwrap(), golden);
    }

    #[test]
    fn a_wrong_line_is_an_error_that_names_it() {
        for line in ["a", "a 1", "a x 00", "a 1 0", "a 1 0g", " 1 00", "a 1 00 00"] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
