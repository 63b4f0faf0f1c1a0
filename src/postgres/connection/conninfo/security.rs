//! TLS settings (manual sections 34.1.2 and 34.19).

use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;
use super::error::ConnInfoError;
use super::host::{Host, HostPort};
use super::parameters::{Origin, Parameters};

/// `sslmode`, from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Plaintext only.
    Disable,
    /// Plaintext first; the driver cannot try twice, so it is treated as [`SslMode::Prefer`].
    Allow,
    /// TLS if the server offers it, with any certificate. The default.
    Prefer,
    /// TLS only; the certificate is verified only if a root certificate file exists.
    Require,
    /// TLS only, with a certificate from a trusted authority.
    VerifyCa,
    /// TLS only, with a certificate from a trusted authority for this host.
    VerifyFull,
}

impl SslMode {
    /// Reads `sslmode` and sets its default, which depends on the roots.
    fn read(parameters: &mut Parameters, roots: &Roots) -> Result<Self, ConnInfoError> {
        // As libpq 16: with the system's many authorities only the host name makes a certificate safe.
        let default = if *roots == Roots::System { Self::VerifyFull } else { Self::Prefer };
        let mode = parameters.choice(
            "sslmode",
            default,
            &[
                Self::Disable,
                Self::Allow,
                Self::Prefer,
                Self::Require,
                Self::VerifyCa,
                Self::VerifyFull,
            ]
            .map(|mode| (mode.name(), mode)),
            "disable, allow, prefer, require, verify-ca or verify-full",
        )?;
        parameters.offer("sslmode", mode.name(), Origin::Default);
        if *roots == Roots::System && mode < Self::VerifyFull {
            return Err(ConnInfoError::WeakSystemRoot { sslmode: mode.name() });
        }
        Ok(mode)
    }

    /// Returns the value, as in `sslmode=verify-full`.
    pub const fn name(self) -> &'static str {
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

/// The trusted authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// A PEM file: `sslrootcert`, or `~/.postgresql/root.crt` where that exists.
    File(PathBuf),
    /// The operating system's (`sslrootcert=system`).
    System,
    /// The file does not exist; holds its path, if the home folder is known.
    Missing(Option<PathBuf>),
}

/// The files of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain: `sslcert`, or `~/.postgresql/postgresql.crt`.
    pub certificate: PathBuf,
    /// Its private key: `sslkey`, or `~/.postgresql/postgresql.key`.
    pub key: PathBuf,
}

/// The supported TLS versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl TlsVersion {
    /// Reads the oldest and the newest version that are allowed.
    fn range(parameters: &Parameters) -> Result<(Self, Self), ConnInfoError> {
        let oldest = parameters.choice(
            "ssl_min_protocol_version",
            Self::V12,
            &[
                ("", Self::V12),
                ("TLSv1", Self::V12),
                ("TLSv1.1", Self::V12),
                ("TLSv1.2", Self::V12),
                ("TLSv1.3", Self::V13),
            ],
            "TLSv1.2 or TLSv1.3",
        )?;
        let newest = parameters.choice(
            "ssl_max_protocol_version",
            Self::V13,
            &[("", Self::V13), ("TLSv1.2", Self::V12), ("TLSv1.3", Self::V13)],
            "TLSv1.2 or TLSv1.3",
        )?;
        if newest < oldest {
            return Err(parameters.invalid(
                "ssl_max_protocol_version",
                "a version no older than ssl_min_protocol_version",
            ));
        }
        Ok((oldest, newest))
    }
}

/// TLS settings of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// `sslmode`. Default: `prefer`, or `verify-full` with `sslrootcert=system`.
    pub mode: SslMode,
    /// The trusted authorities (`sslrootcert`).
    pub roots: Roots,
    /// The client certificate to send if the server requests one.
    pub identity: Option<ClientCertificate>,
    /// Whether the host name is sent in the handshake (`sslsni`). Default: yes.
    pub names_host: bool,
    /// Whether TLS starts without negotiation (`sslnegotiation=direct`, `PostgreSQL` 17). Default: no.
    pub is_direct: bool,
    /// `ssl_min_protocol_version`. Default: 1.2.
    pub oldest: TlsVersion,
    /// `ssl_max_protocol_version`. Default: 1.3.
    pub newest: TlsVersion,
}

/// How a connection is protected; `Display` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// A Unix socket.
    LocalSocket,
    /// Not encrypted.
    Plaintext,
    /// Encrypted if the server offers it; the server is not verified.
    Opportunistic,
    /// Encrypted; the server is not verified.
    Unverified,
    /// Encrypted, with a certificate from a trusted authority for any host.
    AuthorityVerified,
    /// Encrypted, with a certificate from a trusted authority for this host.
    Verified,
}

impl Protection {
    /// Returns whether the connection is safe from eavesdropping and impersonation of the server.
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::LocalSocket | Self::Verified)
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalSocket => "local socket: nothing leaves this machine",
            Self::Plaintext => "not encrypted: the network can read and change everything",
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
    /// Reads the parameters, sets the default of `sslmode`, and warns about files that do not exist.
    pub(super) fn read(
        parameters: &mut Parameters,
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConnInfoError> {
        let roots = Roots::read(parameters, environment);
        let mode = SslMode::read(parameters, &roots)?;
        if let Roots::Missing(Some(path)) = &roots
            && mode == SslMode::Require
            && parameters.given("sslrootcert").is_some()
        {
            warnings.push(format!(
                "sslrootcert {} does not exist: the server's certificate is not checked",
                path.display()
            ));
        }

        let is_direct = parameters.choice(
            "sslnegotiation",
            false,
            &[("postgres", false), ("direct", true)],
            "postgres or direct",
        )?;
        if is_direct && mode < SslMode::Require {
            return Err(ConnInfoError::WeakDirectNegotiation { sslmode: mode.name() });
        }
        let shows_certificate = parameters.choice(
            "sslcertmode",
            Some(true),
            &[("disable", Some(false)), ("allow", Some(true)), ("require", None)],
            "disable or allow",
        )?;
        let Some(shows_certificate) = shows_certificate else {
            return Err(parameters.unsupported(
                "sslcertmode",
                "whether the server asked for a certificate cannot be checked",
            ));
        };
        let names_host =
            parameters.choice("sslsni", true, &[("0", false), ("1", true)], "0 or 1")?;
        let (oldest, newest) = TlsVersion::range(parameters)?;
        let identity = if shows_certificate && mode > SslMode::Disable {
            ClientCertificate::read(parameters, environment, warnings)?
        } else {
            None
        };
        Ok(Self { mode, roots, identity, names_host, is_direct, oldest, newest })
    }

    /// Rejects `verify-full` for a target without a host name.
    pub(super) fn check(&self, targets: &[HostPort]) -> Result<(), ConnInfoError> {
        let nameless = |target: &HostPort| matches!(target.host, Host::Address { name: None, .. });
        if self.mode == SslMode::VerifyFull && targets.iter().any(nameless) {
            return Err(ConnInfoError::NoNameToVerify);
        }
        Ok(())
    }

    /// Returns the mode after libpq's rule that `require` means `verify-ca` where a root certificate
    /// file exists.
    pub fn effective_mode(&self) -> SslMode {
        match (self.mode, &self.roots) {
            (SslMode::Require, Roots::File(_)) => SslMode::VerifyCa,
            (mode, _) => mode,
        }
    }

    /// Returns the protection of a connection over TCP.
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
    fn read(parameters: &Parameters, environment: &Environment) -> Self {
        let path = match parameters.given("sslrootcert") {
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

impl ClientCertificate {
    fn read(
        parameters: &Parameters,
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, ConnInfoError> {
        let named = parameters.given("sslcert").map(PathBuf::from);
        let is_named = named.is_some();
        let Some(certificate) = named.or_else(|| environment.at_home(".postgresql/postgresql.crt"))
        else {
            return Ok(None);
        };
        if !certificate.exists() {
            // libpq does not warn: a missing sslcert is a known way to send no certificate.
            if is_named {
                warnings.push(format!(
                    "sslcert {} does not exist: no client certificate is sent",
                    certificate.display()
                ));
            }
            return Ok(None);
        }
        let key = match parameters.given("sslkey") {
            Some(engine) if engine.contains(':') && !engine.starts_with('/') => {
                return Err(
                    parameters.unsupported("sslkey", "keys in OpenSSL engines are not supported")
                );
            }
            Some(path) => Some(PathBuf::from(path)),
            None => environment.at_home(".postgresql/postgresql.key"),
        };
        Ok(key.map(|key| Self { certificate, key }))
    }
}
