//! The password file, `~/.pgpass` (manual section 34.16).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The lines of a password file.
pub(super) struct PassFile {
    lines: Vec<String>,
}

/// The login to find a password for.
pub(super) struct Login<'a> {
    /// The name as given; `localhost` for the default socket folder.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

impl PassFile {
    /// Reads a password file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// A warning if the file exists but is ignored: as in libpq, one with any permission for group or
    /// others is.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let Ok(metadata) = fs::metadata(path) else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Err(format!(
                "password file {} was ignored: it is not a plain file",
                path.display()
            ));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(format!(
                "password file {0} was ignored: others may read it (chmod 0600 {0})",
                path.display()
            ));
        }
        let bytes = fs::read(path)
            .map_err(|error| format!("password file {} was ignored: {error}", path.display()))?;
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| String::from_utf8(line.to_vec()).ok())
            .collect();
        Ok(Some(Self { lines }))
    }

    /// Returns the password of the first line that matches.
    pub(super) fn password(&self, login: &Login<'_>) -> Option<String> {
        let port = login.port.to_string();
        self.lines
            .iter()
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let rest = after_match(line, login.host)?;
                let rest = after_match(rest, &port)?;
                let rest = after_match(rest, login.database)?;
                let rest = after_match(rest, login.user)?;
                Some(unescaped(rest))
            })
    }
}

/// Returns the rest of the line after the first field, if that field is `*` or matches the value.
fn after_match<'a>(line: &'a str, value: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut value = value.chars();
    let mut line = line.chars();
    loop {
        match line.next()? {
            ':' => return value.next().is_none().then_some(line.as_str()),
            '\\' => {
                if line.next()? != value.next()? {
                    return None;
                }
            }
            c => {
                if c != value.next()? {
                    return None;
                }
            }
        }
    }
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().unwrap_or('\\')),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(file: &str, host: &str, database: &str) -> Option<String> {
        let lines = file.lines().map(str::to_owned).collect();
        PassFile { lines }.password(&Login { host, port: 5432, database, user: "app" })
    }

    #[test]
    fn the_first_fitting_line_wins() {
        let file = "# h:5432:d:app:comment\nh:5433:d:app:port\nh:5432:*:app:first\n*:*:*:*:last\n";
        assert_eq!(password(file, "h", "d").as_deref(), Some("first"));
        assert_eq!(password(file, "other", "d").as_deref(), Some("last"));
    }

    #[test]
    fn colons_and_backslashes_are_escaped_in_fields_and_password() {
        let file = r"\:\:1:5432:a\\b:app:p\:w\\d:x";
        assert_eq!(password(file, "::1", r"a\b").as_deref(), Some(r"p:w\d:x"));
        assert_eq!(password(file, "::", r"a\b"), None);
    }

    #[test]
    fn a_prefix_or_a_short_line_does_not_fit() {
        assert_eq!(password("ho:5432:d:app:x", "h", "d"), None);
        assert_eq!(password("h:5432:d:app:x", "ho", "d"), None);
        assert_eq!(password("h:5432:d:app", "h", "d"), None);
        assert_eq!(password("**:5432:d:app:x", "h", "d"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored_with_a_warning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgpass");
        fs::write(&path, "*:*:*:*:x\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let warning = PassFile::read(&path).map(|_| ()).expect_err("ignored");
        assert!(warning.contains("chmod 0600"), "{warning}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(PassFile::read(&path).expect("read").is_some());
        assert!(PassFile::read(&folder.path().join("none")).expect("none").is_none());
        assert!(PassFile::read(folder.path()).is_err());
    }
}
