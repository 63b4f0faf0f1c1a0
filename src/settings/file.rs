//! Finds and parses `pricesync.toml`, and checks who can read it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::SettingsError;
use super::keys::{KEYS, nearest};
use super::{FILE_NAME, Origin, Variables};

/// Returns the file that `--config` or `PRICESYNC_CONFIG` names, or the nearest one upwards.
pub(super) fn find(
    named: Option<&Path>,
    variable: Variables<'_>,
    folder: &Path,
) -> Option<PathBuf> {
    let named = named.map(Path::to_path_buf).or_else(|| {
        let name = variable("PRICESYNC_CONFIG").filter(|value| !value.is_empty());
        name.map(PathBuf::from)
    });
    match named {
        Some(named) => Some(folder.join(named)),
        None => folder
            .ancestors()
            .map(|ancestor| ancestor.join(FILE_NAME))
            .find(|candidate| candidate.is_file()),
    }
}

/// Returns the values of a configuration file by key, as texts with their lines.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, (String, usize)>, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::Unreadable(path.to_path_buf(), error))?;
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let document = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        SettingsError::Syntax(path.to_path_buf(), line, error.message().to_owned())
    })?;
    let unknown = |name: &str, offset: usize| {
        SettingsError::UnknownKey(
            path.to_path_buf(),
            line_of(offset),
            name.to_owned(),
            nearest(name),
        )
    };
    let mut values = BTreeMap::new();
    for (section, content) in document.get_ref() {
        let Some(table) = content.get_ref().as_table() else {
            return Err(unknown(section.get_ref(), section.span().start));
        };
        let prefix = format!("{}.", section.get_ref());
        if !KEYS.iter().any(|key| key.name.starts_with(&prefix)) {
            return Err(unknown(section.get_ref(), section.span().start));
        }
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let Some(key) = KEYS.iter().find(|key| key.name == full) else {
                return Err(unknown(&full, name.span().start));
            };
            let line = line_of(name.span().start);
            let Some(value) = plain(value.get_ref()) else {
                return Err(SettingsError::BadValue(
                    Origin::File(path.to_path_buf(), line),
                    key.name,
                    text[value.span()].to_owned(),
                    "a text or a number".to_owned(),
                ));
            };
            values.insert(full, (value, line));
        }
    }
    Ok(values)
}

/// Returns a text or a number as text, and a list joined by commas; `None` for other types.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> =
                items.iter().map(|item| plain(item.get_ref())).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

/// Returns whether a URL has a password before its `@`, or a key=value string has `password=`.
pub(super) fn holds_password(url: &str) -> bool {
    let in_url = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    // Spaces are allowed around the equal sign (manual section 34.1.1.1).
    let in_words = |words: &str| words.trim_start().starts_with('=');
    in_url || url.split("password").skip(1).any(in_words)
}

#[cfg(unix)]
pub(super) fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn others_may_read(_: &Path) -> bool {
    false
}
