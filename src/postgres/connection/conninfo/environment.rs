//! The process environment: variables, home folder, user name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::error::ConnInfoError;
use super::keyword::KEYWORDS;
use super::parameters::{Origin, Parameters};

/// A snapshot of the variables, the home folder and the user name that libpq reads.
///
/// `Debug` shows names of variables, never values.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    user: Option<String>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Returns this process's own environment.
    ///
    /// The user name is that of the effective user in `/etc/passwd` (libpq asks `getpwuid`);
    /// where it is not listed there (LDAP, macOS), that of `USER` or `LOGNAME`. The home
    /// folder is `HOME`, else the one in `/etc/passwd` (libpq 15 and later).
    pub fn from_process() -> Self {
        let mut environment = Self::from_pairs(std::env::vars_os());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Some((name, home)) = account(&passwd, rustix::process::geteuid().as_raw()) {
            environment.user = Some(name.to_owned());
            environment.home.get_or_insert_with(|| home.into());
        }
        environment
    }

    /// Returns an environment of exactly these variables; `USER` (or `LOGNAME`) is the user's
    /// name and `HOME` the home folder.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let variables: BTreeMap<OsString, OsString> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let filled = |name: &str| variables.get(OsStr::new(name)).filter(|value| !value.is_empty());
        let user = filled("USER")
            .or_else(|| filled("LOGNAME"))
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        let home = filled("HOME").map(PathBuf::from);
        Self { variables, user, home }
    }

    /// Returns whether a variable says which server or database is meant.
    ///
    /// pricesync never invents a database, so a process without any of these and without a
    /// connection string has nothing configured.
    pub fn names_a_database(&self) -> bool {
        ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE"]
            .iter()
            .any(|name| self.variable(name).is_some_and(|value| !value.is_empty()))
    }

    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(super) fn text(&self, variable: &'static str) -> Result<Option<&str>, ConnInfoError> {
        let value = self.variable(variable);
        value.map(|value| value.to_str().ok_or(ConnInfoError::NotUtf8 { variable })).transpose()
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns a path below the home folder.
    pub(super) fn at_home(&self, path: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(path))
    }

    /// Sets parameters that neither the string nor the service file has (manual section 34.15).
    pub(super) fn fill(&self, parameters: &mut Parameters) -> Result<(), ConnInfoError> {
        for keyword in KEYWORDS {
            let Some(variable) = keyword.variable else {
                continue;
            };
            if parameters.get(keyword.name).is_some() {
                continue;
            }
            if let Some(value) = self.text(variable)? {
                parameters.set(keyword.name, value, Origin::Environment(variable));
            }
        }
        // The variable of libpq 7, still read by every later one.
        if self
            .variable("PGREQUIRESSL")
            .is_some_and(|value| value.as_encoded_bytes().starts_with(b"1"))
        {
            parameters.offer("sslmode", "require", Origin::Environment("PGREQUIRESSL"));
        }
        Ok(())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("user", &self.user)
            .field("home", &self.home)
            .finish()
    }
}

/// Returns the name and home folder of a user in the text of `/etc/passwd` (passwd(5)).
fn account(passwd: &str, uid: u32) -> Option<(&str, &str)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, _, home, ..] = fields[..] else {
            return None;
        };
        (id.parse() == Ok(uid)).then_some((name, home))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nana:x:1000:1000:,,,:/home/ana:/bin/sh\n";
        assert_eq!(account(passwd, 1000), Some(("ana", "/home/ana")));
        assert_eq!(account(passwd, 0), Some(("root", "/root")));
        assert_eq!(account(passwd, 7), None);
    }

    #[test]
    fn values_of_variables_stay_out_of_debug() {
        let environment = Environment::from_pairs([("PGPASSWORD", "s3cret")]);
        assert!(!format!("{environment:?}").contains("s3cret"));
    }

    #[test]
    fn a_password_alone_does_not_name_a_database() {
        assert!(!Environment::from_pairs([("PGPASSWORD", "x"), ("PGHOST", "")]).names_a_database());
        assert!(Environment::from_pairs([("PGSERVICE", "x")]).names_a_database());
    }
}
