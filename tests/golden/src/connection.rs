//! A connection to a server, as far as capturing needs one.
//!
//! It shares nothing with the product's own connection on purpose: golden bytes are no proof of anything when
//! they came through the code that they test.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use std::error::Error;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than any step of a scenario takes on a busy machine.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const PROTOCOL_VERSION: u32 = 3 << 16;

/// Over the Unix socket, as `postgres`, trusted.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// For SQL.
    pub(crate) fn sql(socket_dir: &Path, port: u16, database: &str) -> Result<Self, Box<dyn Error>> {
        Self::open(socket_dir, port, &[("database", database)])
    }

    /// For replication commands.
    pub(crate) fn replication(socket_dir: &Path, port: u16, database: &str) -> Result<Self, Box<dyn Error>> {
        Self::open(socket_dir, port, &[("database", database), ("replication", "database")])
    }

    fn open(socket_dir: &Path, port: u16, parameters: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let stream = UnixStream::connect(socket_dir.join(format!(".s.PGSQL.{port}")))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let mut connection = Self { stream: BufReader::new(stream) };
        let mut startup = PROTOCOL_VERSION.to_be_bytes().to_vec();
        for (name, value) in [("user", "postgres"), ("client_encoding", "UTF8")].iter().chain(parameters) {
            startup.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        startup.push(0);
        connection.send(&startup)?;
        connection.wait_for(b'Z')?;
        Ok(connection)
    }

    /// Runs a command to its end; what it returns is dropped.
    pub(crate) fn run(&mut self, command: &str) -> Result<(), Box<dyn Error>> {
        self.command(command, b'Z')
    }

    /// Runs `START_REPLICATION`; frames follow.
    pub(crate) fn start_copy(&mut self, command: &str) -> Result<(), Box<dyn Error>> {
        self.command(command, b'W')
    }

    fn command(&mut self, command: &str, until: u8) -> Result<(), Box<dyn Error>> {
        let body = format!("{command}\0");
        self.stream.get_mut().write_all(b"Q")?;
        self.send(body.as_bytes())?;
        self.wait_for(until).map_err(|error| format!("{error}\nin: {command}"))?;
        Ok(())
    }

    /// Body of the next CopyData message.
    pub(crate) fn next_frame(&mut self) -> Result<Vec<u8>, Box<dyn Error>> {
        self.wait_for(b'd')
    }

    /// Asks for a keepalive, without acknowledging anything.
    pub(crate) fn request_keepalive(&mut self) -> Result<(), Box<dyn Error>> {
        // Written, flushed and applied up to 0/0, at time 0, and the wish for a reply.
        let mut update = vec![b'r'];
        update.extend_from_slice(&[0; 32]);
        update.push(1);
        self.stream.get_mut().write_all(b"d")?;
        self.send(&update)
    }

    fn send(&mut self, body: &[u8]) -> Result<(), Box<dyn Error>> {
        let length = u32::try_from(body.len() + 4)?;
        let message = [&length.to_be_bytes(), body].concat();
        self.stream.get_mut().write_all(&message)?;
        Ok(())
    }

    /// Reads up to the first message of this type and gives its body; an error message ends it early.
    fn wait_for(&mut self, wanted: u8) -> Result<Vec<u8>, Box<dyn Error>> {
        loop {
            let mut kind = [0];
            self.stream.read_exact(&mut kind)?;
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            let size =
                u32::from_be_bytes(length).checked_sub(4).ok_or("a message shorter than its length")?;
            let mut body = vec![0; usize::try_from(size)?];
            self.stream.read_exact(&mut body)?;
            match kind {
                [kind] if kind == wanted => return Ok(body),
                [b'E'] => return Err(String::from_utf8_lossy(&body).replace('\0', " ").into()),
                _ => {}
            }
        }
    }
}
