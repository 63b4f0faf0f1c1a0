//! The servers to try, in order (manual section 34.1.1.3).

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::error::ConnInfoError;
use super::parameters::{Origin, Parameters};

/// The default folders of the server's socket: Debian's and Red Hat's, then that of a server built from
/// source.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// The folder that holds the server's Unix socket.
    Socket(PathBuf),
    /// A name (or an address written as one) that the system's resolver looks up.
    Name(String),
    /// A numeric address; the name, if any, is compared with the certificate.
    Address {
        /// `host`.
        name: Option<String>,
        /// `hostaddr`.
        address: IpAddr,
    },
}

/// A host and its port; `Display` gives `db.example.com:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, also part of the socket's file name.
    pub port: u16,
}

impl HostPort {
    /// Returns the host name to look up in the password file.
    pub(super) fn password_file_name(&self) -> String {
        match &self.host {
            Host::Socket(folder) if folder == default_socket_folder() => "localhost".to_owned(),
            Host::Socket(folder) => folder.display().to_string(),
            Host::Name(name) | Host::Address { name: Some(name), .. } => name.clone(),
            Host::Address { address, .. } => address.to_string(),
        }
    }

    /// Returns whether the server is reached through a Unix socket.
    pub const fn is_socket(&self) -> bool {
        matches!(self.host, Host::Socket(_))
    }

    /// Returns whether the connection stays on this machine.
    pub fn is_local(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Name(name) => {
                name == "localhost"
                    || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Host::Address { address, .. } => address.is_loopback(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Socket(folder) => write!(f, "{}", folder.display().to_string().escape_debug())?,
            Host::Name(name) if name.contains(':') => write!(f, "[{}]", name.escape_debug())?,
            Host::Name(name) | Host::Address { name: Some(name), .. } => {
                write!(f, "{}", name.escape_debug())?;
            }
            Host::Address { address: IpAddr::V6(address), .. } => write!(f, "[{address}]")?,
            Host::Address { address, .. } => write!(f, "{address}")?,
        }
        write!(f, ":{}", self.port)
    }
}

/// Pairs the lists of `host`, `hostaddr` and `port`, and sets the defaults that it used.
pub(super) fn targets(parameters: &mut Parameters) -> Result<Vec<HostPort>, ConnInfoError> {
    let list =
        |parameter| parameters.given(parameter).map(|text| text.split(',').collect::<Vec<_>>());
    let names = list("host");
    let addresses = list("hostaddr");
    let ports = list("port").unwrap_or_else(|| vec![""]);
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, std::vec::Vec::len);
    for (parameter, found) in [
        ("host", names.as_ref().map_or(count, Vec::len)),
        ("port", if ports.len() == 1 { count } else { ports.len() }),
    ] {
        if found != count {
            return Err(ConnInfoError::ListLengths { parameter, found, hosts: count });
        }
    }

    let mut targets = Vec::with_capacity(count);
    for index in 0..count {
        let at = |list: &Option<Vec<&str>>| {
            list.as_ref().map(|list| list[index].to_owned()).filter(|entry| !entry.is_empty())
        };
        let name = at(&names);
        let host = match at(&addresses) {
            Some(address) => Host::Address {
                address: address.parse().map_err(|_| {
                    parameters.invalid("hostaddr", "a numeric IPv4 or IPv6 address")
                })?,
                name,
            },
            None => match name {
                None => Host::Socket(default_socket_folder().to_owned()),
                Some(folder) if folder.starts_with('/') => Host::Socket(folder.into()),
                Some(name) if name.starts_with('@') => {
                    return Err(parameters.unsupported(
                        "host",
                        "sockets in the abstract namespace ('@...') are not supported",
                    ));
                }
                Some(name) => Host::Name(name),
            },
        };
        let port = ports[if ports.len() == 1 { 0 } else { index }].trim_ascii();
        let port = match port {
            "" => DEFAULT_PORT,
            text => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| parameters.invalid("port", "a number from 1 to 65535"))?,
        };
        targets.push(HostPort { host, port });
    }

    if names.is_none() && addresses.is_none() {
        let folder = default_socket_folder().display().to_string();
        parameters.set("host", folder, Origin::Default);
    }
    if parameters.given("port").is_none() {
        parameters.set("port", DEFAULT_PORT.to_string(), Origin::Default);
    }
    Ok(targets)
}

fn default_socket_folder() -> &'static Path {
    let [usual, fallback] = SOCKET_FOLDERS.map(Path::new);
    if usual.is_dir() { usual } else { fallback }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[(&'static str, &str)]) -> String {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            parameters.set(name, *value, Origin::Text);
        }
        match targets(&mut parameters) {
            Ok(targets) => targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn lists_are_paired_as_libpq_pairs_them() {
        for (parameters, targets) in [
            (&[("host", "a,b"), ("port", "1,2")][..], "a:1 b:2"),
            (&[("host", "a,b"), ("port", "7")], "a:7 b:7"),
            (&[("host", "a,b"), ("port", "1,")], "a:1 b:5432"),
            (&[("host", "a,/s,::1")], "a:5432 /s:5432 [::1]:5432"),
            (&[("hostaddr", "1.2.3.4"), ("port", " 6 ")], "1.2.3.4:6"),
            (&[("host", "a,b"), ("hostaddr", "1.2.3.4,")], "a:5432 b:5432"),
            (&[("host", "a"), ("port", "1,2")], "error: port lists 2 values, but there is 1 host"),
            (
                &[("host", "a"), ("hostaddr", "1.1.1.1,2.2.2.2")],
                "error: host lists 1 value, but there are 2 hosts",
            ),
            (
                &[("host", "a"), ("port", "0")],
                "error: port '0' (connection string) is not valid: expected a number from 1 to 65535",
            ),
            (
                &[("hostaddr", "localhost")],
                "error: hostaddr 'localhost' (connection string) is not valid: expected a numeric IPv4 or IPv6 address",
            ),
        ] {
            assert_eq!(shown(parameters), targets, "{parameters:?}");
        }
    }

    #[test]
    fn without_a_host_the_default_socket_is_meant() {
        let folder = default_socket_folder().display();
        assert_eq!(shown(&[]), format!("{folder}:5432"));
        assert_eq!(shown(&[("host", ""), ("port", "")]), format!("{folder}:5432"));
        assert_eq!(shown(&[("host", ","), ("port", "1,2")]), format!("{folder}:1 {folder}:2"));
    }

    #[test]
    fn the_default_socket_is_localhost_to_the_password_file() {
        let target = |host| HostPort { host, port: 1 };
        let default = target(Host::Socket(default_socket_folder().to_owned()));
        assert_eq!(default.password_file_name(), "localhost");
        assert_eq!(target(Host::Socket("/s".into())).password_file_name(), "/s");
    }
}
