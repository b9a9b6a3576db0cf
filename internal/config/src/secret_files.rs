//! `password_file` and its like: secrets that are in files of their own.

use crate::ConfigError;
use crate::document::{Document, join};
use crate::schema::Shape;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No password or key is longer; a wrong path may be.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// For every key `x_file` beside a secret `x`: puts the file's content into `x`, without its last newline.
/// Relative paths are of `folder`.
pub(crate) fn read_secrets(document: &mut Document, folder: &Path) -> Result<(), ConfigError> {
    for (table, fields) in document.tables() {
        for field in &fields {
            let Some(key) = field.key.strip_suffix("_file") else { continue };
            if !fields.iter().any(|other| other.key == key && matches!(other.shape, Shape::Secret)) {
                continue;
            }
            read_secret(document, &join(&table, key), &join(&table, field.key), folder)?;
        }
    }
    Ok(())
}

fn read_secret(
    document: &mut Document,
    path: &str,
    file_path: &str,
    folder: &Path,
) -> Result<(), ConfigError> {
    let text = |path: &str| document.get(path).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
    let Some(file) = text(file_path) else { return Ok(()) };
    let shown = document.shown(file_path);
    if text(path).is_some() {
        let both = format!("`{}` and `{shown}` are both set; keep one", document.shown(path));
        return Err(document.error(file_path, both));
    }
    let content = read(&folder.join(file)).map_err(|reason| {
        document
            .error(file_path, format!("`{shown}`: cannot use {}: {reason}", document.quoted(file_path, file)))
    })?;
    document.set(path, content.into());
    document.hide(path);
    Ok(())
}

fn read(file: &Path) -> Result<String, String> {
    let mut content = Vec::new();
    File::open(file)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|error| error.to_string())?;
    if content.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("it has more than {SECRET_BYTES_MAX} bytes, which no secret has"));
    }
    let content = String::from_utf8(content).map_err(|_| "it is not UTF-8")?;
    let content = content.strip_suffix('\n').unwrap_or(&content);
    let content = content.strip_suffix('\r').unwrap_or(content);
    if content.is_empty() {
        return Err("it is empty".into());
    }
    Ok(content.to_owned())
}
