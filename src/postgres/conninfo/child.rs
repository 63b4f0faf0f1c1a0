//! The same connection for client programs: psql, `pg_dump`.

use std::ffi::OsString;
use std::process::Command;

use super::ConnectOptions;
use super::keyword::KEYWORDS;

/// Words that libpq has resolved into others by the time a child starts.
const RESOLVED: [&str; 2] = ["service", "servicefile"];

impl ConnectOptions {
    /// Returns the variables with which psql or `pg_dump` connect to the same place.
    ///
    /// The password travels here and never on a command line. It is left to the password
    /// file if several hosts have different ones there. Words without a variable
    /// (`keepalives`, `tcp_user_timeout`) cannot be passed on. A child that inherits other
    /// `PG*` variables may still be led elsewhere (a service wins over a variable), so prefer
    /// [`ConnectOptions::apply_to`].
    #[must_use]
    pub fn child_environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&'static str, OsString)> = self
            .words
            .iter()
            .filter(|(keyword, value, _)| {
                !RESOLVED.contains(&keyword.name)
                    && keyword.name != "password"
                    // An empty value is as good as none, and older programs may stumble over it.
                    && !value.is_empty()
            })
            .filter_map(|(keyword, value, _)| Some((keyword.variable?, value.into())))
            .collect();
        let same_everywhere = self.passwords.iter().all(|one| *one == self.passwords[0]);
        if let Some(password) = self.passwords[0].as_ref().filter(|_| same_everywhere) {
            variables.push(("PGPASSWORD", password.into()));
        }
        variables
    }

    /// Gives a command the variables of [`ConnectOptions::child_environment`] and takes all
    /// other connection variables away from it.
    pub fn apply_to(&self, command: &mut Command) {
        for variable in KEYWORDS.iter().filter_map(|keyword| keyword.variable) {
            command.env_remove(variable);
        }
        command.env_remove("PGREQUIRESSL");
        command.envs(self.child_environment());
    }
}
