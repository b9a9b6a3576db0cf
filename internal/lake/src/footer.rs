//! Reading what a file says of itself without reading the rest.

use crate::info::{FORMAT_VERSION, FileInfo, KEY};
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use replicator_sink::SinkError;
use replicator_store::Store;

/// What is read of a file's end at first: footers of a few hundred columns fit.
const TAIL_BYTES: u64 = 64 << 10;

/// The most that a footer may have.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// What the file at `path` holds, and its size in bytes.
///
/// # Errors
/// Those of the store; to halt where it is no file of ours.
pub async fn read_info(store: &Store, path: &str) -> Result<(FileInfo, u64), SinkError> {
    let (metadata, bytes) = read_metadata(store, path).await?;
    info_of(&metadata).map(|info| (info, bytes)).map_err(|why| foreign(store, path, &why))
}

async fn read_metadata(store: &Store, path: &str) -> Result<(ParquetMetaData, u64), SinkError> {
    let mut wanted = TAIL_BYTES;
    loop {
        let (tail, bytes) = store.tail(path, wanted).await?;
        match parse(&tail, bytes) {
            Ok(metadata) => return Ok((metadata, bytes)),
            Err(ParquetError::NeedMoreData(more))
                if more as u64 > wanted && more as u64 <= FOOTER_BYTES_MAX.min(bytes) =>
            {
                wanted = more as u64;
            }
            Err(error) => return Err(foreign(store, path, &error.to_string())),
        }
    }
}

fn parse(tail: &Bytes, bytes: u64) -> Result<ParquetMetaData, ParquetError> {
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse_sized(tail, bytes)?;
    reader.finish()
}

/// What the file at `path` on this machine says of itself.
pub(crate) fn local_info(path: &std::path::Path) -> Result<FileInfo, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| error.to_string())?;
    info_of(&metadata)
}

/// What a footer says; why it is none of ours otherwise.
pub(crate) fn info_of(metadata: &ParquetMetaData) -> Result<FileInfo, String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let entry = entries.into_iter().flatten().find(|entry| entry.key == KEY);
    let Some(text) = entry.and_then(|entry| entry.value.as_deref()) else {
        return Err("it was not written by this program".into());
    };
    let info: FileInfo = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if info.format_version > FORMAT_VERSION {
        return Err(format!("its format, version {}, is of a later replicator", info.format_version));
    }
    Ok(info)
}

/// What is to be done about an object that is not ours under a name of ours.
pub(crate) fn foreign(store: &Store, path: &str, why: &str) -> SinkError {
    SinkError::halt(format!("{path} at {} is no file of this lake: {why}. Move it elsewhere", store.place()))
}
