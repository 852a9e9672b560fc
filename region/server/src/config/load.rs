use std::path::{Path, PathBuf};

use figment::{
    Error, Figment, Metadata, Profile, Provider, Source,
    providers::{Format as _, Serialized, Toml},
    util::nest,
    value::{Dict, Map, Value},
};

use super::{Config, check::check};

/// The file that is read when it is there and no other is named.
pub(crate) const DEFAULT_FILE: &str = "antiphon.toml";
const ENV_PREFIX: &str = "ANTIPHON_";
/// Variables of this prefix that are no settings of the server.
const ENV_OTHER: [&str; 4] = [
    "ANTIPHON_CONFIG",
    "ANTIPHON_PASSWORD",
    "ANTIPHON_ADMIN",
    "ANTIPHON_WORLD",
];

/// Where values may come from, from weak to strong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file named on the command line; without one, [`DEFAULT_FILE`] if it is there.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Key, value and the flag as the user wrote it.
    pub(crate) flags: Vec<(String, String, String)>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file named is not there.
    #[error("configuration file {} is not there", .0.display())]
    NoFile(PathBuf),
    /// A key that nothing reads.
    #[error("unknown setting `{key}` (from {origin}); `antiphon config --reference` lists them all")]
    UnknownKey { key: String, origin: String },
    /// A value of the wrong type.
    #[error("setting `{key}` (from {origin}): {reason}")]
    Type {
        key: String,
        origin: String,
        reason: String,
    },
    /// A value out of its limits.
    #[error("setting `{key}` (from {origin}) {rule}")]
    Value { key: String, origin: String, rule: String },
    /// The file cannot be read at all.
    #[error("configuration file {} cannot be read: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
}

/// The configuration as it counts, and where each value came from.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    pub(crate) config: Config,
    merged: Figment,
}

impl Effective {
    /// What set `key`, in words.
    pub(crate) fn origin(&self, key: &str) -> String {
        origin(&self.merged, key)
    }

    /// Whether `key` is other than its default says.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        self.origin(key) == "default"
    }
}

/// Reads all sources; the strongest wins, key by key.
///
/// # Errors
/// [`ConfigError`], naming the key and what set it.
pub(crate) fn load(sources: &Sources) -> Result<Effective, ConfigError> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let mut merged = defaults.clone();
    if let Some(path) = file(sources.file.as_deref())? {
        let toml = Toml::file_exact(path);
        toml.data().map_err(|error| unreadable(path, &error))?;
        merged = merged.merge(toml);
    }
    for (name, rest, text) in settings_of(&sources.environment) {
        let key = rest.to_lowercase().replace("__", ".");
        merged = merged.merge(Override::new(
            &defaults,
            key,
            text,
            format!("environment variable {name}"),
        ));
    }
    for (key, text, flag) in &sources.flags {
        merged = merged.merge(Override::new(&defaults, key.clone(), text, format!("flag {flag}")));
    }
    refuse_unknown(&merged, &defaults)?;
    let config: Config = merged.extract().map_err(|error| wrong_type(&merged, &error))?;
    let effective = Effective { config, merged };
    check(&effective)?;
    Ok(effective)
}

fn file(named: Option<&Path>) -> Result<Option<&Path>, ConfigError> {
    match named {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => Err(ConfigError::NoFile(path.to_owned())),
        None => Ok(Some(Path::new(DEFAULT_FILE)).filter(|path| path.is_file())),
    }
}

/// Name, name without prefix, and text of the variables that are settings.
fn settings_of(environment: &[(String, String)]) -> impl Iterator<Item = (&str, &str, &str)> {
    environment
        .iter()
        .filter(|(name, _)| !ENV_OTHER.contains(&name.as_str()))
        .filter_map(|(name, text)| Some((name.as_str(), name.strip_prefix(ENV_PREFIX)?, text.as_str())))
}

/// One value from the environment or the command line.
struct Override {
    key: String,
    value: Value,
    origin: String,
}

impl Override {
    /// Reads `text` as what the key holds: text, names divided by commas, or a number or a boolean if it looks like one.
    fn new(defaults: &Figment, key: String, text: &str, origin: String) -> Self {
        let value = match defaults.find_value(&key) {
            Ok(Value::String(..)) => Value::from(text),
            Ok(Value::Array(..)) => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Value::from(names.collect::<Vec<_>>())
            }
            Ok(_) | Err(_) => text.parse().unwrap_or_else(|_| Value::from(text)),
        };
        Self { key, value, origin }
    }
}

impl Provider for Override {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let dict = nest(&self.key, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

fn refuse_unknown(merged: &Figment, defaults: &Figment) -> Result<(), ConfigError> {
    let known = leaves(&dict_of(defaults));
    for key in leaves(&dict_of(merged)) {
        // A section in the place of a key, or a key in the place of a section, is a wrong type: left to the extraction.
        let is_known = known
            .iter()
            .any(|other| *other == key || other.starts_with(&format!("{key}.")));
        if !is_known {
            return Err(ConfigError::UnknownKey {
                origin: origin(merged, &key),
                key,
            });
        }
    }
    Ok(())
}

fn dict_of(figment: &Figment) -> Dict {
    figment
        .data()
        .ok()
        .and_then(|mut profiles| profiles.remove(&Profile::Default))
        .unwrap_or_default()
}

/// Dotted paths of all values.
fn leaves(dict: &Dict) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in dict {
        match value.as_dict() {
            Some(inner) if !inner.is_empty() => {
                found.extend(leaves(inner).into_iter().map(|rest| format!("{name}.{rest}")));
            }
            _ => found.push(name.clone()),
        }
    }
    found
}

fn origin(merged: &Figment, key: &str) -> String {
    merged
        .find_metadata(key)
        .map_or_else(|| "nowhere".to_owned(), origin_of)
}

fn origin_of(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(Source::File(path)) => format!("file {}", path.display()),
        Some(Source::Code(_)) => "default".to_owned(),
        _ => metadata.name.to_string(),
    }
}

fn wrong_type(merged: &Figment, error: &Error) -> ConfigError {
    let key = error.path.join(".");
    let origin = error.metadata.as_ref().map_or_else(|| origin(merged, &key), origin_of);
    ConfigError::Type {
        key,
        origin,
        reason: error.kind.to_string(),
    }
}

fn unreadable(path: &Path, error: &Error) -> ConfigError {
    ConfigError::Unreadable {
        path: path.to_owned(),
        reason: error.kind.to_string(),
    }
}
