use crate::Environment;
use crate::document::Document;
use crate::environment::override_keys;
use crate::inspect::inspect;
use crate::interpolate::interpolate;
use crate::model::Config;
use crate::secret_files::read_secrets;
use crate::validate::validate;
use std::fmt;
use std::path::Path;

/// The configuration cannot be used. One line: where (file and line, or variable), which key, what to do.
/// Never a secret.
#[derive(Debug)]
pub struct ConfigError(String);

impl ConfigError {
    /// An error of that text, which is brought to one line.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self(
            text.as_ref()
                .split(|c: char| c.is_control())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Reads the file at `path`, with this process' environment. Relative paths in it are of its folder.
///
/// # Errors
/// When the file cannot be read, or see [`load`].
pub fn load_file(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let name = path.display();
        ConfigError::new(format!(
            "cannot read the configuration {name}: {error}; `replicator config` prints one to begin with"
        ))
    })?;
    let name = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    load(&text, &name, folder, &Environment::of_process())
}

/// Reads a configuration from text, with this process' environment.
///
/// # Errors
/// See [`load`].
pub fn load_str(text: &str) -> Result<Config, ConfigError> {
    load(text, "configuration", Path::new(""), &Environment::of_process())
}

/// Reads a configuration from text. `name` is what errors call the text, `folder` where its relative paths
/// begin.
///
/// # Errors
/// When it is not TOML, a key is unknown, missing or of the wrong type, a value is out of range, a variable
/// is not set, or a secret's file cannot be read.
pub fn load(text: &str, name: &str, folder: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let mut document = Document::parse(text, name)?;
    override_keys(&mut document, environment)?;
    interpolate(&mut document, environment)?;
    inspect(&document)?;
    read_secrets(&mut document, folder)?;
    let config =
        serde_path_to_error::deserialize(toml::Value::Table(document.root.clone())).map_err(|error| {
            // The inspection knows the same model; what it lets through, serde takes. Serde's own text might
            // quote a secret.
            ConfigError::new(format!("{name}: `{}` cannot be read", error.path()))
        })?;
    validate(&config, &document)?;
    Ok(config)
}
