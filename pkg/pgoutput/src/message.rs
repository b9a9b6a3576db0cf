use replicator_types::{Lsn, ReplicaIdentity, Tuple};

/// A message of the `pgoutput` plugin. The letter is the first byte on the wire; the number the protocol
/// version that brought it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// `B` (1)
    Begin(Begin),
    /// `C` (1)
    Commit(Commit),
    /// `O` (1)
    Origin(Origin<'a>),
    /// `R` (1)
    Relation(RelationMessage<'a>),
    /// `Y` (1)
    Type(TypeMessage<'a>),
    /// `I` (1)
    Insert(Insert<'a>),
    /// `U` (1)
    Update(Update<'a>),
    /// `D` (1)
    Delete(Delete<'a>),
    /// `T` (1)
    Truncate(Truncate),
    /// `M` (1)
    Logical(LogicalMessage<'a>),
    /// `S` (2)
    StreamStart(StreamStart),
    /// `E` (2)
    StreamStop,
    /// `c` (2)
    StreamCommit(StreamCommit),
    /// `A` (2; longer since 4)
    StreamAbort(StreamAbort),
    /// `b` (3)
    BeginPrepare(BeginPrepare<'a>),
    /// `P` (3)
    Prepare(Prepare<'a>),
    /// `K` (3)
    CommitPrepared(CommitPrepared<'a>),
    /// `r` (3)
    RollbackPrepared(RollbackPrepared<'a>),
    /// `p` (3)
    StreamPrepare(Prepare<'a>),
}

/// A transaction begins. All of its changes follow, then its Commit: transactions come one at a time, in
/// the order of their commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begin {
    /// Start of its commit record.
    pub final_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC: by the clock of the server it was first committed on,
    /// so for a transaction with an Origin neither this server's nor rising from one to the next.
    pub commit_time_us: i64,
    /// Transaction id.
    pub xid: u32,
}

/// The transaction is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Start of the commit record, as in Begin.
    pub commit_lsn: Lsn,
    /// End of the commit record, exclusive: what may be acknowledged once everything is durable.
    pub end_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
}

/// The transaction came to this server from another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// Commit LSN at the origin; 0/0 within a stream block, where it is not known yet.
    pub commit_lsn: Lsn,
    /// Name of the replication origin.
    pub name: &'a str,
}

/// A table's shape, sent before its first change on a connection and after every change of shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationMessage<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema; empty on the wire for `pg_catalog`, filled in here.
    pub schema: &'a str,
    /// Table.
    pub name: &'a str,
    /// `pg_class.relreplident`.
    pub replica_identity: ReplicaIdentity,
    /// Published columns in tuple order.
    pub columns: Vec<ColumnMessage<'a>>,
}

/// A column of a [`RelationMessage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColumnMessage<'a> {
    /// Whether it is part of the replica identity (every column under FULL).
    pub in_identity: bool,
    /// Name.
    pub name: &'a str,
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
}

/// Name of a type that is not built in. For a domain it is the name of its base type, under the domain's oid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TypeMessage<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// `pg_type.oid`.
    pub oid: u32,
    /// Schema.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
}

/// A new row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insert<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// `pg_class.oid`.
    pub relation_oid: u32,
    /// The row.
    pub new: Tuple<'a>,
}

/// A row before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Old<'a> {
    /// `K`: the replica identity's columns; the others are NULL.
    Key(Tuple<'a>),
    /// `O`: every column.
    Full(Tuple<'a>),
}

/// A changed row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Update<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// `pg_class.oid`.
    pub relation_oid: u32,
    /// The row before: under identity default or index only when the key changed, under FULL always.
    pub old: Option<Old<'a>>,
    /// The row after.
    pub new: Tuple<'a>,
}

/// A deleted row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delete<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// `pg_class.oid`.
    pub relation_oid: u32,
    /// The row, or its key.
    pub old: Old<'a>,
}

/// Tables emptied by one statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncate {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// CASCADE was said; the tables it reached are listed too.
    pub cascade: bool,
    /// RESTART IDENTITY was said.
    pub restart_identity: bool,
    /// `pg_class.oid` of each table.
    pub relation_oids: Vec<u32>,
}

/// `pg_logical_emit_message`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogicalMessage<'a> {
    /// Transaction within a stream block.
    pub xid: Option<u32>,
    /// Whether it belongs to the transaction around it. If not, it completes nothing and stands alone.
    pub transactional: bool,
    /// End of its WAL record, exclusive: what `pg_logical_emit_message` returned.
    pub lsn: Lsn,
    /// Prefix.
    pub prefix: &'a str,
    /// Content.
    pub content: &'a [u8],
}

/// Changes of an in-progress transaction begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamStart {
    /// Top-level transaction.
    pub xid: u32,
    /// Whether nothing of it was sent before.
    pub first_segment: bool,
}

/// A streamed transaction is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamCommit {
    /// Top-level transaction.
    pub xid: u32,
    /// Start of the commit record.
    pub commit_lsn: Lsn,
    /// End of the commit record, exclusive.
    pub end_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
}

/// A streamed transaction, or a subtransaction of it, is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamAbort {
    /// Top-level transaction.
    pub xid: u32,
    /// What is undone: the same as `xid` for all of it.
    pub subxid: u32,
    /// LSN of the abort and its time; only with `streaming = parallel`.
    pub abort: Option<(Lsn, i64)>,
}

/// A transaction to be prepared begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BeginPrepare<'a> {
    /// Start of the prepare record.
    pub prepare_lsn: Lsn,
    /// End of the prepare record, exclusive.
    pub end_lsn: Lsn,
    /// Prepare time, microseconds since 2000-01-01 UTC.
    pub prepare_time_us: i64,
    /// Transaction id.
    pub xid: u32,
    /// The name it was prepared under.
    pub gid: &'a str,
}

/// The transaction is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepare<'a> {
    /// Start of the prepare record.
    pub prepare_lsn: Lsn,
    /// End of the prepare record, exclusive.
    pub end_lsn: Lsn,
    /// Prepare time, microseconds since 2000-01-01 UTC.
    pub prepare_time_us: i64,
    /// Transaction id.
    pub xid: u32,
    /// The name it was prepared under.
    pub gid: &'a str,
}

/// A prepared transaction is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitPrepared<'a> {
    /// Start of the commit record.
    pub commit_lsn: Lsn,
    /// End of the commit record, exclusive.
    pub end_lsn: Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
    /// Transaction id.
    pub xid: u32,
    /// The name it was prepared under.
    pub gid: &'a str,
}

/// A prepared transaction is undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RollbackPrepared<'a> {
    /// End of the prepare record, exclusive.
    pub prepare_end_lsn: Lsn,
    /// End of the rollback record, exclusive.
    pub rollback_end_lsn: Lsn,
    /// Prepare time, microseconds since 2000-01-01 UTC.
    pub prepare_time_us: i64,
    /// Rollback time, microseconds since 2000-01-01 UTC.
    pub rollback_time_us: i64,
    /// Transaction id.
    pub xid: u32,
    /// The name it was prepared under.
    pub gid: &'a str,
}
