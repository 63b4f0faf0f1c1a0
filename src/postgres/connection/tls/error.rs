//! Errors of the TLS setup.

use std::fmt;
use std::path::PathBuf;

use rustls::pki_types::pem;

use crate::postgres::connection::conninfo::ClientCertificate;

/// Why the certificates and keys of the connection parameters cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// `sslmode` requires a verified certificate, and there is no root certificate.
    NoRoots {
        /// The mode.
        sslmode: &'static str,
        /// The file that does not exist, if the home folder is known.
        looked_for: Option<PathBuf>,
    },
    /// `sslrootcert=system`, and the system has no usable root certificate.
    NoSystemRoots,
    /// A file is not readable or not PEM.
    UnreadablePem {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: pem::Error,
    },
    /// A PEM file holds no certificate.
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the root file cannot be parsed.
    UnusableRoot {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: rustls::Error,
    },
    /// There is a client certificate but no private key for it.
    NoKey {
        /// The certificate and the place of the missing key.
        identity: ClientCertificate,
    },
    /// Users other than the owner may read the private key.
    ExposedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The client certificate and its key do not match, or are of an unknown kind.
    UnusableIdentity {
        /// Both files.
        identity: ClientCertificate,
        /// The reason.
        error: rustls::Error,
    },
    /// The TLS library rejected the settings.
    Library(rustls::Error),
}

impl TlsError {
    /// Returns a hint, where the message does not contain one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRoots { .. } => Some(
                "name the authority's certificate with sslrootcert=<file>, trust the operating \
                 system's with sslrootcert=system, or disable the check with sslmode=require"
                    .to_owned(),
            ),
            Self::NoSystemRoots => Some(
                "install the ca-certificates package, or name a file with sslrootcert".to_owned(),
            ),
            Self::ExposedKey { path } => Some(format!("chmod 0600 {}", path.display())),
            Self::EncryptedKey { path } => Some(format!(
                "store it without a passphrase: openssl pkey -in {} -out <new file>",
                path.display()
            )),
            Self::NoKey { .. } => Some("name the key with sslkey=<file>".to_owned()),
            _ => None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoots { sslmode, looked_for: Some(path) } => write!(
                f,
                "sslmode={sslmode} requires a root certificate, and {} does not exist",
                path.display()
            ),
            Self::NoRoots { sslmode, .. } => {
                write!(f, "sslmode={sslmode} requires a root certificate, and none is set")
            }
            Self::NoSystemRoots => f.write_str(
                "sslrootcert=system, but the operating system has no usable certificates",
            ),
            Self::UnreadablePem { path, .. } => write!(f, "{} cannot be read", path.display()),
            Self::NoCertificate { path } => write!(f, "{} contains no certificate", path.display()),
            Self::UnusableRoot { path, .. } => {
                write!(f, "{} contains a certificate that cannot be used", path.display())
            }
            Self::NoKey { identity } => write!(
                f,
                "client certificate {} has no private key: {} does not exist",
                identity.certificate.display(),
                identity.key.display()
            ),
            Self::ExposedKey { path } => {
                write!(f, "private key {} may be read by others", path.display())
            }
            Self::EncryptedKey { path } => {
                write!(f, "private key {} is encrypted, which is not supported", path.display())
            }
            Self::UnusableIdentity { identity, .. } => write!(
                f,
                "client certificate {} cannot be used with key {}",
                identity.certificate.display(),
                identity.key.display()
            ),
            Self::Library(_) => f.write_str("TLS cannot be set up"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnreadablePem { error, .. } => Some(error),
            Self::UnusableRoot { error, .. }
            | Self::UnusableIdentity { error, .. }
            | Self::Library(error) => Some(error),
            _ => None,
        }
    }
}
