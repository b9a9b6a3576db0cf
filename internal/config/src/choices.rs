//! The words that some keys are one of.

use crate::schema::choice;

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// Readable on a terminal, JSON elsewhere.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

choice! {
    /// How important a log line is.
    pub enum LogLevel {
        /// What each stage does.
        Debug = "debug",
        /// What an operator wants to know afterwards.
        Info = "info",
        /// What may need attention.
        Warn = "warn",
        /// What failed.
        Error = "error",
    }
}

choice! {
    /// What a ClickHouse table holds.
    pub enum ClickHouseMode {
        /// The source's rows as they are now.
        Mirror = "mirror",
        /// Every change, appended.
        History = "history",
    }
}

choice! {
    /// What becomes of a row deleted at the source.
    pub enum DeleteMode {
        /// It goes: `FINAL` and the view no longer show it.
        Hard = "hard",
        /// It stays, marked by `_deleted` = 1; the view hides it.
        Soft = "soft",
    }
}

choice! {
    /// Where tables of schemas other than `public` go.
    pub enum SchemaNaming {
        /// Into the one database, as `schema_table`.
        Prefix = "prefix",
        /// Into a database named after the schema.
        Database = "database",
    }
}

choice! {
    /// What becomes of a value that a ClickHouse type has no room for: a date before 1900 or after 2299,
    /// `infinity`, a NaN in a `numeric(p,s)`. The first two are counted and logged.
    pub enum OutOfRange {
        /// The nearest value there is; NULL for a NaN.
        Clamp = "clamp",
        /// NULL.
        Null = "null",
        /// The change is rejected.
        Error = "error",
    }
}

choice! {
    /// How array columns are declared in ClickHouse, where an array is never NULL and has a fixed dimension.
    pub enum ArrayColumns {
        /// `Array(Nullable(T))` where the source forbids NULL, else the text.
        Auto = "auto",
        /// `Array(Nullable(T))`; NULL becomes an empty array, counted and logged.
        Array = "array",
        /// The text `{…}`, which has room for everything.
        Text = "text",
    }
}

choice! {
    /// What of the rows that are there before the stream begins is copied.
    pub enum Snapshot {
        /// Every table that a sink has not been given yet, beside the stream; tables added later likewise.
        Initial = "initial",
        /// None: only changes.
        Never = "never",
        /// As `initial`, and the run ends when the copy is durable. The stream goes on at the next run.
        Only = "only",
    }
}

choice! {
    /// Whether values are sent in the types' binary forms.
    pub enum BinaryValues {
        /// In binary form, where every published column has a type whose binary form is understood: it costs the server and the
        /// sinks less.
        Auto = "auto",
        /// The same, and the log warns where it has to be text.
        On = "on",
        /// As text.
        Off = "off",
    }
}

choice! {
    /// Whether the server sends transactions before they commit.
    pub enum StreamingMode {
        /// As `off`, with every version: what comes early has to be kept here instead, and arrives no sooner.
        Auto = "auto",
        /// Whole transactions, after they commit. The server keeps large ones on its disk until then.
        Off = "off",
        /// In pieces, once they outgrow `logical_decoding_work_mem`; kept here until they commit. Postgres 14.
        On = "on",
        /// The same, with what Postgres 16 tells of aborts.
        Parallel = "parallel",
    }
}

choice! {
    /// Which changes are read, by where they were made first.
    pub enum OriginFilter {
        /// All.
        Any = "any",
        /// Those made at the source itself, and none that a replication brought there. Postgres 16.
        None = "none",
    }
}

choice! {
    /// What becomes of a column whose type changes to one that its counterpart can't be changed to.
    pub enum TypeChanges {
        /// The table waits, the log says what to do, and other tables go on.
        Error = "error",
        /// The counterpart stays; values that do not fit it are treated as any that do not fit.
        Keep = "keep",
        /// The counterpart becomes text, which has room for everything.
        String = "string",
    }
}

choice! {
    /// What a commit in a Postgres target waits for, as its `synchronous_commit`. Not to be `off`: the source would be told that
    /// changes are durable that the target still loses in a crash.
    pub enum SynchronousCommit {
        /// For the target's disk, and for those of its synchronous standbys.
        On = "on",
        /// For the target's disk alone.
        Local = "local",
        /// For the target's disk, and until synchronous standbys have written it, though not yet to their disks.
        RemoteWrite = "remote_write",
        /// As `on`, and until synchronous standbys show it.
        RemoteApply = "remote_apply",
    }
}

choice! {
    /// How the lake's Parquet files are compressed.
    pub enum ParquetCompression {
        /// Zstandard, level 1: small files.
        Zstd = "zstd",
        /// Snappy: somewhat larger, and read with less work.
        Snappy = "snappy",
        /// Not at all.
        None = "none",
    }
}
