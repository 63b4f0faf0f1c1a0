//! Passes the connection to client programs such as psql and `pg_dump`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::Command;

use super::ConnectOptions;
use super::host::Host;
use super::keyword::KEYWORDS;

/// Parameters that are already resolved into others.
const RESOLVED: [&str; 2] = ["service", "servicefile"];

impl ConnectOptions {
    /// Returns the variables with which psql or `pg_dump` connect to the same server.
    ///
    /// The password is passed in a variable, never on a command line; where the hosts have different
    /// passwords, libpq reads them from the password file. Parameters without a variable
    /// (`keepalives`, `tcp_user_timeout`) cannot be passed on. A child that inherits other
    /// `PG*` variables may connect elsewhere (a service overrides a variable), so prefer
    /// [`ConnectOptions::apply_to`].
    pub fn child_environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&'static str, OsString)> = self
            .parameters
            .iter()
            .filter(|(keyword, value, _)| {
                !RESOLVED.contains(&keyword.name)
                    && keyword.name != "password"
                    // An empty value means the same as none, and some older programs reject it.
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

    /// Returns a URL to the same server for programs that do not read libpq's variables, with these
    /// `options`, the TLS settings and no password.
    pub fn url(&self, options: &str) -> String {
        let user = percent_encoded(&self.user);
        let database = percent_encoded(&self.database);
        let sockets: Vec<&str> = self
            .targets
            .iter()
            .filter_map(|target| match &target.host {
                Host::Socket(folder) => folder.to_str(),
                _ => None,
            })
            .collect();
        let mut url = format!("postgresql://{user}@");
        let mut query = Vec::new();
        if sockets.is_empty() {
            let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
            url += &targets.join(",");
        } else {
            let ports: Vec<String> =
                self.targets.iter().map(|target| target.port.to_string()).collect();
            query.push(format!("host={}", percent_encoded(&sockets.join(","))));
            query.push(format!("port={}", ports.join(",")));
        }
        let _ = write!(url, "/{database}");
        for name in ["sslmode", "sslrootcert", "sslcert", "sslkey"] {
            if let Some(value) = self.parameters.given(name) {
                query.push(format!("{name}={}", percent_encoded(value)));
            }
        }
        query.push(format!("options={}", percent_encoded(options)));
        let _ = write!(url, "?{}", query.join("&"));
        url
    }

    /// Sets the variables of [`ConnectOptions::child_environment`] for a command and removes all other
    /// connection variables.
    pub fn apply_to(&self, command: &mut Command) {
        for variable in KEYWORDS.iter().filter_map(|keyword| keyword.variable) {
            command.env_remove(variable);
        }
        command.env_remove("PGREQUIRESSL");
        command.envs(self.child_environment());
    }
}

/// Percent-encodes all bytes except the unreserved ones (RFC 3986, section 2.3).
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::connection::conninfo::Environment;

    #[test]
    fn the_url_leads_to_the_same_place_and_holds_no_password() {
        let environment = Environment::from_pairs::<&str, &str>([]);
        for (text, expected) in [
            (
                "postgresql://an%20a:secret@db:6432/a%2Fb?sslmode=require",
                "postgresql://an%20a@db:6432/a%2Fb?sslmode=require&options=-c%20x%3D1",
            ),
            (
                "host=/tmp/a user=u dbname=d password=secret",
                "postgresql://u@/d?host=%2Ftmp%2Fa&port=5432&sslmode=prefer&options=-c%20x%3D1",
            ),
        ] {
            let options = ConnectOptions::resolve(Some(text), &environment).expect("fine");
            let url = options.url("-c x=1");
            assert_eq!(url, expected);
            let again = ConnectOptions::resolve(Some(&url), &environment).expect("fine");
            assert_eq!(again.describe(), options.describe());
        }
    }
}
