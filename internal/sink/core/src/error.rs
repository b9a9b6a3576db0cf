use std::fmt;

/// What is to be done about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// It may pass by itself, or nothing is known of it: try again, with growing pauses.
    Retry,
    /// Nothing will help but a person: stop, say what to do.
    Halt,
    /// The destination will never take this data, though all else is well.
    Reject,
}

/// A sink's failure. The text names the object (table, column, server) and, for [`ErrorKind::Halt`], the
/// remedy; it never holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    kind: ErrorKind,
    text: String,
    table: Option<u32>,
}

impl SinkError {
    /// See [`ErrorKind::Retry`].
    pub fn retry(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Retry, text: text.into(), table: None }
    }

    /// See [`ErrorKind::Halt`].
    pub fn halt(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Halt, text: text.into(), table: None }
    }

    /// See [`ErrorKind::Reject`].
    pub fn reject(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Reject, text: text.into(), table: None }
    }

    /// Says that it is the matter with one table alone, by the oid of its relation: without that table's changes the
    /// batch would go through.
    #[must_use]
    pub fn of_table(mut self, oid: u32) -> Self {
        self.table.get_or_insert(oid);
        self
    }

    /// The table that it is the matter with, if it is one alone.
    pub fn table(&self) -> Option<u32> {
        self.table
    }

    /// What is to be done.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the server wrote.
        for (index, line) in self.text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl std::error::Error for SinkError {}
