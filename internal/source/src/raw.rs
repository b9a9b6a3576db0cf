//! Connections on which this crate speaks the protocol itself: startup, simple queries, and the way into a copy.
//!
//! ```text
//!   connect_replication ─▶ commands of the walsender ─▶ CopyBoth: reader and feedback own a half each
//!   connect_sql ─────────▶ simple queries ────────────▶ CopyOut:  rows, read here by whoever asked for them
//! ```
//!
//! `tokio-postgres` has no CopyBoth, and hands out a copy's rows one allocation each; so both are done here, on
//! `postgres-protocol`'s message types. Until the copy begins messages are few and small.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-flow.html>,
//! <https://www.postgresql.org/docs/current/protocol-replication.html>.

use crate::auth::{Authentication, Next};
use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use replicator_pgconn::{
    ConnectError, ConnectOptions, Host, PgStream, ServerError, SocketOptions, StartupError, establish,
};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `SO_RCVBUF` of a replication connection to a peer nearby: the window behind which the sender's messages
/// gather (see [`pace`](crate::pace)). It fills with small packets after every burst, so it is small; measured,
/// 64 KiB costs the sender least, 512 KiB a tenth more, and below 32 KiB it is too small to burst through.
const NEAR_RECEIVE_BUFFER_BYTES: u32 = 64 << 10;

/// Outside of a copy no message is larger than a row of text: 16 MiB is beyond any.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Room for one read of a copy's rows.
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Settings that make the text of a value depend on the value alone, whatever the role, the database or the
/// server say. The first three are those of Postgres' own receiver (`libpqrcv_connect` in
/// `src/backend/replication/libpqwalreceiver/libpqwalreceiver.c`).
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    // `money` is written with two decimals, `$`, `,` and `.`.
    ("lc_monetary", "C"),
    // `regclass`, `regproc` and `regtype` values carry their schema.
    ("search_path", "pg_catalog"),
    ("quote_all_identifiers", "off"),
    // What would end a long wait in the middle of decoding.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// A connection that is spoken to directly.
#[derive(Debug)]
pub(crate) struct RawConnection {
    stream: PgStream,
    buffer: BytesMut,
    process_id: i32,
}

/// What is on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// A walsender, which takes its own commands beside SQL.
    WalSender,
    /// An ordinary session.
    Sql,
}

/// A column of a query's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DescribedColumn {
    /// The table it is of, 0 for none.
    pub(crate) table_oid: u32,
    /// Its number there.
    pub(crate) attnum: i16,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    Server(ServerError),
    Io(io::Error),
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl CommandError {
    /// In the words of [`SourceError`](crate::SourceError).
    pub(crate) fn into_source_error(self, doing: &str) -> crate::SourceError {
        match self {
            Self::Server(error) => crate::SourceError::of_server(doing, &error),
            Self::Io(error) => crate::SourceError::retry(format!("{doing}: the connection broke: {error}")),
        }
    }
}

/// A row of a command's answer: text or NULL.
pub(crate) type TextRow = Vec<Option<String>>;

impl RawConnection {
    /// Connects to a walsender of the database, with [`SETTINGS`].
    pub(crate) async fn connect_replication(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let socket = SocketOptions { near_receive_buffer_bytes: Some(NEAR_RECEIVE_BUFFER_BYTES) };
        establish(options, socket, |stream, host| Self::start_up(stream, host, options, Side::WalSender))
            .await
    }

    /// Connects for SQL. No settings are made: they would be refused by poolers when they come with the startup.
    pub(crate) async fn connect_sql(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let socket = SocketOptions::default();
        establish(options, socket, |stream, host| Self::start_up(stream, host, options, Side::Sql)).await
    }

    async fn start_up(
        stream: PgStream,
        host: Host,
        options: &ConnectOptions,
        side: Side,
    ) -> Result<Self, StartupError> {
        let mut connection = Self { stream, buffer: BytesMut::with_capacity(16 << 10), process_id: 0 };
        let mut out = BytesMut::new();
        let mut parameters =
            vec![("user", options.user()), ("database", options.database()), ("client_encoding", "UTF8")];
        parameters.extend(options.application_name().map(|name| ("application_name", name)));
        if side == Side::WalSender {
            parameters.push(("replication", "database"));
            parameters.extend(options.settings().iter().map(|(name, value)| (name.as_str(), value.as_str())));
            // Last, so that they win.
            parameters.extend_from_slice(SETTINGS);
        }
        frontend::startup_message(parameters, &mut out)?;
        connection.stream.write_all(&out).await?;
        connection.authenticate(options, &host).await?;
        loop {
            match connection.message().await? {
                Message::BackendKeyData(body) => connection.process_id = body.process_id(),
                Message::ReadyForQuery(_) => return Ok(connection),
                Message::ErrorResponse(body) => {
                    return Err(StartupError::Server(server_error(body.fields())));
                }
                Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
                _ => return Err(StartupError::Protocol("a message came out of turn at startup".to_owned())),
            }
        }
    }

    async fn authenticate(&mut self, options: &ConnectOptions, host: &Host) -> Result<(), StartupError> {
        let password = options.password_for(host);
        let hash = self.stream.end_point_hash().map(<[u8]>::to_vec);
        let mut authentication = Authentication::new(
            options.user(),
            password.as_deref(),
            options.channel_binding(),
            hash.as_deref(),
        );
        loop {
            let message = match self.message().await? {
                Message::ErrorResponse(body) => {
                    return Err(StartupError::Server(server_error(body.fields())));
                }
                Message::NoticeResponse(_) => continue,
                message => message,
            };
            match authentication.next(message)? {
                Next::Send(bytes) => self.stream.write_all(&bytes).await?,
                Next::Read => {}
                Next::Done => return Ok(()),
            }
        }
    }

    /// The server's process, for `pg_stat_activity` and `pg_terminate_backend`.
    pub(crate) fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Runs a command that answers with rows; of several statements, the rows of all.
    pub(crate) async fn query(&mut self, command: &str) -> Result<Vec<TextRow>, CommandError> {
        self.send_query(command).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.message().await? {
                Message::DataRow(row) => rows.push(text_row(&row)?),
                Message::ErrorResponse(body) => failure = Some(server_error(body.fields())),
                Message::ReadyForQuery(_) => {
                    return failure.map_or(Ok(rows), |error| Err(CommandError::Server(error)));
                }
                _ => {}
            }
        }
    }

    /// Runs a query and returns what its columns are.
    pub(crate) async fn describe(&mut self, query: &str) -> Result<Vec<DescribedColumn>, CommandError> {
        self.send_query(query).await?;
        let mut columns = Vec::new();
        let mut failure = None;
        loop {
            match self.message().await? {
                Message::RowDescription(body) => {
                    let mut fields = body.fields();
                    while let Some(field) = fields.next()? {
                        columns.push(DescribedColumn {
                            table_oid: field.table_oid(),
                            attnum: field.column_id(),
                            type_oid: field.type_oid(),
                            type_modifier: field.type_modifier(),
                        });
                    }
                }
                Message::ErrorResponse(body) => failure = Some(server_error(body.fields())),
                Message::ReadyForQuery(_) => {
                    return failure.map_or(Ok(columns), |error| Err(CommandError::Server(error)));
                }
                _ => {}
            }
        }
    }

    /// Begins a `COPY … TO STDOUT`. What follows is read by [`RawConnection::received`].
    pub(crate) async fn start_copy_out(&mut self, command: &str) -> Result<(), CommandError> {
        self.send_query(command).await?;
        let mut failure = None;
        loop {
            match self.message().await? {
                Message::CopyOutResponse(_) => return Ok(()),
                Message::ErrorResponse(body) => failure = Some(server_error(body.fields())),
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => {
                    let text = "the answer to COPY was not understood";
                    let broken = io::Error::new(io::ErrorKind::InvalidData, text);
                    return Err(failure.map_or(broken.into(), CommandError::Server));
                }
            }
        }
    }

    /// What has been received and not been taken.
    pub(crate) fn received(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes that many bytes off the front of what was received.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.buffer.advance(bytes.min(self.buffer.len()));
    }

    /// Takes a whole message that lies at the front of what was received.
    pub(crate) fn take_message(&mut self) -> io::Result<Option<Message>> {
        Message::parse(&mut self.buffer)
    }

    /// Waits for more. The message at the front claims `message_bytes` in all, which is not believed at once: the
    /// buffer doubles as bytes arrive. Nothing is lost when the future is dropped.
    pub(crate) async fn receive(&mut self, message_bytes: usize) -> io::Result<()> {
        let held = self.buffer.len();
        let size = message_bytes.min(2 * held).max(COPY_BUFFER_BYTES);
        if self.buffer.capacity() - held < COPY_BUFFER_BYTES / 4 {
            self.buffer.reserve(size.saturating_sub(held).max(1));
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Runs START_REPLICATION. Ends with the socket and what has already been read of the stream.
    pub(crate) async fn start_copy_both(
        mut self,
        command: &str,
    ) -> Result<(PgStream, BytesMut), CommandError> {
        self.send_query(command).await?;
        loop {
            self.fill().await?;
            // CopyBothResponse, which `postgres-protocol` does not know.
            if self.buffer.first() == Some(&b'W') {
                let length = self.buffer.get(1..5).and_then(|bytes| bytes.first_chunk::<4>()).copied();
                let length = length.map_or(0, u32::from_be_bytes) as usize;
                self.buffer.advance(self.buffer.len().min(length + 1));
                return Ok((self.stream, self.buffer));
            }
            match Message::parse(&mut self.buffer)? {
                Some(Message::ErrorResponse(body)) => {
                    return Err(CommandError::Server(server_error(body.fields())));
                }
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Some(_) | None => {
                    let text = "the answer to START_REPLICATION was not understood";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
                }
            }
        }
    }

    /// Says goodbye; without it the server's log has an "unexpected EOF".
    pub(crate) async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // A connection that is broken already needs no goodbye.
        let _ = self.stream.write_all(&out).await;
        let _ = self.stream.shutdown().await;
    }

    async fn send_query(&mut self, command: &str) -> io::Result<()> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)?;
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    async fn message(&mut self) -> io::Result<Message> {
        self.stream.flush().await?;
        self.fill().await?;
        Message::parse(&mut self.buffer)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads until a whole message is at the front of the buffer.
    async fn fill(&mut self) -> io::Result<()> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let [_, a, b, c, d] = *header;
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
                    let text = format!("a message claims {length} bytes");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                if self.buffer.len() > length {
                    return Ok(());
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn text_row(row: &DataRowBody) -> io::Result<TextRow> {
    let mut values = Vec::new();
    let mut ranges = row.ranges();
    while let Some(range) = ranges.next()? {
        let bytes = range.and_then(|range| row.buffer().get(range));
        values.push(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok(values)
}

/// The fields of an ErrorResponse or NoticeResponse.
pub(crate) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error = ServerError::default();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'S' if error.severity.is_empty() => error.severity = value,
            b'V' => error.severity = value,
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            b'H' => error.hint = Some(value),
            _ => {}
        }
    }
    error
}
