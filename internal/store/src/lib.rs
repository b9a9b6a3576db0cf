//! A place in an object store: S3, R2, any store that speaks S3, or a folder of this machine.
//!
//! ```text
//!   url, keys ──open──▶ Store ──put_new──▶ only where nothing has that name
//!                         │  ──replace──▶ in the place of what is there
//!                         │  ──replace_version──▶ only in the place of what was seen
//!                         └─ find, range, list, delete
//! ```
//!
//! # Invariants
//! - `Ok` of a write means durable, also in a folder: the file and all folders that lead to it are synced.
//! - Paths are relative to the place; the place's own prefix is in no path that goes in or comes out.
//! - Errors say what was tried, where, and what to do; no secret is in any.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>,
//! <https://developers.cloudflare.com/r2/api/s3/extensions/>.

mod errors;
mod local;
mod notes;
mod store;
mod time;

pub use local::LocalFolder;
pub use notes::Notes;
pub use store::{Found, PUT_BYTES_MAX, Put, Store, Version, blocking, secret_access_key};
pub use time::{CommitTime, Hour, ULID_CHARS, nearest_lsn, parse_ulid, ulid, ulid_of};
