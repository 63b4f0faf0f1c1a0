//! What the words say about TLS (manual sections 34.1.2 and 34.19).

use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;
use super::error::ConnInfoError;
use super::host::{Host, Target};
use super::words::{Origin, Words};

/// How much protection `sslmode` asks for on TCP; weaker ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Plaintext only.
    Disable,
    /// Plaintext first; the driver cannot try twice, so it is treated as [`SslMode::Prefer`].
    Allow,
    /// TLS if the server offers it, and no question about its certificate. The default.
    Prefer,
    /// TLS or nothing; the certificate is checked only if a root certificate file exists.
    Require,
    /// TLS, and a certificate from a trusted authority.
    VerifyCa,
    /// TLS, and a certificate from a trusted authority for this very host.
    VerifyFull,
}

impl SslMode {
    /// Returns the word, as in `sslmode=verify-full`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The authorities that a server's certificate may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// A PEM file: `sslrootcert`, or `~/.postgresql/root.crt` where that exists.
    File(PathBuf),
    /// The operating system's (`sslrootcert=system`).
    System,
    /// There is no file; holds the path that was looked for, if there was one.
    Missing(Option<PathBuf>),
}

/// The files of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain: `sslcert`, or `~/.postgresql/postgresql.crt`.
    pub certificate: PathBuf,
    /// Its private key: `sslkey`, or `~/.postgresql/postgresql.key`.
    pub key: PathBuf,
}

/// The TLS versions that may be spoken; older ones are not implemented by the TLS library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Everything the words say about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// What `sslmode` says, or its default.
    pub mode: SslMode,
    /// Who is trusted.
    pub roots: Roots,
    /// The certificate to show if the server asks for one.
    pub identity: Option<Identity>,
    /// Whether the server is told which host name is meant (`sslsni`); on by default.
    pub names_host: bool,
    /// Whether TLS starts at once, without asking (`sslnegotiation=direct`, `PostgreSQL` 17).
    pub is_direct: bool,
    /// The oldest version allowed.
    pub oldest: TlsVersion,
    /// The newest version allowed.
    pub newest: TlsVersion,
}

/// What protects a connection, in words (`Display`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// It never leaves this machine.
    LocalSocket,
    /// Nothing.
    Plaintext,
    /// Encrypted if the server offers it; nobody checks who answers.
    Opportunistic,
    /// Encrypted; nobody checks who answers.
    Unverified,
    /// Encrypted, with a certificate from a trusted authority, for whatever host.
    AuthorityVerified,
    /// Encrypted, with a certificate from a trusted authority for this host.
    Verified,
}

impl Protection {
    /// Returns whether somebody in between could neither read along nor pose as the server.
    #[must_use]
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::LocalSocket | Self::Verified)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalSocket => "local socket: nothing leaves this machine",
            Self::Plaintext => "not encrypted: anybody in between can read and change everything",
            Self::Opportunistic => {
                "encrypted only if the server offers it, and the server is not verified"
            }
            Self::Unverified => "encrypted, but the server is not verified",
            Self::AuthorityVerified => {
                "encrypted, and the server's certificate comes from a trusted authority, but its \
                 name is not verified"
            }
            Self::Verified => "encrypted, and the server is verified",
        })
    }
}

impl Security {
    /// Reads the words; records the default of `sslmode`; warns about files that do not exist.
    pub(super) fn read(
        words: &mut Words,
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConnInfoError> {
        let roots = Roots::read(words, environment);
        // libpq 16: the system's many authorities mean nothing without the name.
        let default = if roots == Roots::System {
            SslMode::VerifyFull
        } else {
            SslMode::Prefer
        };
        let mode = words.choice(
            "sslmode",
            default,
            &[
                SslMode::Disable,
                SslMode::Allow,
                SslMode::Prefer,
                SslMode::Require,
                SslMode::VerifyCa,
                SslMode::VerifyFull,
            ]
            .map(|mode| (mode.word(), mode)),
            "disable, allow, prefer, require, verify-ca or verify-full",
        )?;
        words.offer("sslmode", mode.word(), Origin::Default);
        if roots == Roots::System && mode < SslMode::VerifyFull {
            return Err(ConnInfoError::WeakSystemRoot {
                sslmode: mode.word(),
            });
        }
        if let Roots::Missing(Some(path)) = &roots
            && mode == SslMode::Require
            && words.given("sslrootcert").is_some()
        {
            warnings.push(format!(
                "sslrootcert {} does not exist: the server's certificate is not checked",
                path.display()
            ));
        }

        let is_direct = words.choice(
            "sslnegotiation",
            false,
            &[("postgres", false), ("direct", true)],
            "postgres or direct",
        )?;
        if is_direct && mode < SslMode::Require {
            return Err(ConnInfoError::WeakDirectNegotiation {
                sslmode: mode.word(),
            });
        }
        let shows_certificate = words.choice(
            "sslcertmode",
            Some(true),
            &[
                ("disable", Some(false)),
                ("allow", Some(true)),
                ("require", None),
            ],
            "disable or allow",
        )?;
        let Some(shows_certificate) = shows_certificate else {
            return Err(words.unsupported(
                "sslcertmode",
                "whether the server asked for a certificate cannot be checked",
            ));
        };
        let names_host = words.choice("sslsni", true, &[("0", false), ("1", true)], "0 or 1")?;
        let oldest = words.choice(
            "ssl_min_protocol_version",
            TlsVersion::V12,
            &[
                ("", TlsVersion::V12),
                ("TLSv1", TlsVersion::V12),
                ("TLSv1.1", TlsVersion::V12),
                ("TLSv1.2", TlsVersion::V12),
                ("TLSv1.3", TlsVersion::V13),
            ],
            "TLSv1.2 or TLSv1.3",
        )?;
        let newest = words.choice(
            "ssl_max_protocol_version",
            TlsVersion::V13,
            &[
                ("", TlsVersion::V13),
                ("TLSv1.2", TlsVersion::V12),
                ("TLSv1.3", TlsVersion::V13),
            ],
            "TLSv1.2 or TLSv1.3",
        )?;
        if newest < oldest {
            return Err(words.invalid(
                "ssl_max_protocol_version",
                "a version no older than ssl_min_protocol_version",
            ));
        }
        let identity = if shows_certificate && mode > SslMode::Disable {
            Identity::read(words, environment, warnings)?
        } else {
            None
        };
        Ok(Self {
            mode,
            roots,
            identity,
            names_host,
            is_direct,
            oldest,
            newest,
        })
    }

    /// Refuses `verify-full` for a target that has no name to verify.
    pub(super) fn check(&self, targets: &[Target]) -> Result<(), ConnInfoError> {
        let nameless = |target: &Target| matches!(target.host, Host::Address { name: None, .. });
        if self.mode == SslMode::VerifyFull && targets.iter().any(nameless) {
            return Err(ConnInfoError::NoNameToVerify);
        }
        Ok(())
    }

    /// Returns the mode with libpq's rule applied that `require` means `verify-ca` where a
    /// root certificate file exists.
    #[must_use]
    pub fn effective_mode(&self) -> SslMode {
        match (self.mode, &self.roots) {
            (SslMode::Require, Roots::File(_)) => SslMode::VerifyCa,
            (mode, _) => mode,
        }
    }

    /// Returns what protects a connection over TCP.
    pub(super) fn protection(&self) -> Protection {
        match self.effective_mode() {
            SslMode::Disable => Protection::Plaintext,
            SslMode::Allow | SslMode::Prefer => Protection::Opportunistic,
            SslMode::Require => Protection::Unverified,
            SslMode::VerifyCa => Protection::AuthorityVerified,
            SslMode::VerifyFull => Protection::Verified,
        }
    }
}

impl Roots {
    fn read(words: &Words, environment: &Environment) -> Self {
        let path = match words.given("sslrootcert") {
            Some("system") => return Self::System,
            Some(path) => Some(PathBuf::from(path)),
            None => environment.at_home(".postgresql/root.crt"),
        };
        match path {
            Some(path) if path.exists() => Self::File(path),
            path => Self::Missing(path),
        }
    }
}

impl Identity {
    fn read(
        words: &Words,
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, ConnInfoError> {
        let certificate = match words.given("sslcert") {
            Some(path) => Some(PathBuf::from(path)),
            None => environment.at_home(".postgresql/postgresql.crt"),
        };
        let Some(certificate) = certificate else {
            return Ok(None);
        };
        if !certificate.exists() {
            // Pointing sslcert at nothing is a known way to send none, so libpq says nothing.
            if words.given("sslcert").is_some() {
                warnings.push(format!(
                    "sslcert {} does not exist: no client certificate is sent",
                    certificate.display()
                ));
            }
            return Ok(None);
        }
        let key = match words.given("sslkey") {
            Some(engine) if engine.contains(':') && !engine.starts_with('/') => {
                return Err(
                    words.unsupported("sslkey", "keys in OpenSSL engines are not supported")
                );
            }
            Some(path) => Some(PathBuf::from(path)),
            None => environment.at_home(".postgresql/postgresql.key"),
        };
        Ok(key.map(|key| Self { certificate, key }))
    }
}
