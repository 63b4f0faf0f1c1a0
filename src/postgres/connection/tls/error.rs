//! Errors of the TLS setup.

use std::path::PathBuf;

use rustls::pki_types::pem;

use crate::postgres::connection::conninfo::ClientCertificate;

/// Why the certificates and keys of the connection parameters cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// `sslmode` requires a verified certificate, and there is no root certificate.
    #[error(
        "sslmode={sslmode} requires a root certificate, and {}",
        looked_for.as_ref().map_or_else(|| "none is set".to_owned(), |path| format!("{} does not exist", path.display()))
    )]
    NoRoots {
        /// The mode.
        sslmode: &'static str,
        /// The file that does not exist, if the home folder is known.
        looked_for: Option<PathBuf>,
    },
    /// `sslrootcert=system`, and the system has no usable root certificate.
    #[error("sslrootcert=system, but the operating system has no usable certificates")]
    NoSystemRoots,
    /// A file is not readable or not PEM.
    #[error("{path} cannot be read")]
    UnreadablePem {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: pem::Error,
    },
    /// A PEM file holds no certificate.
    #[error("{path} contains no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the root file cannot be parsed.
    #[error("{path} contains a certificate that cannot be used")]
    UnusableRoot {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: rustls::Error,
    },
    /// There is a client certificate but no private key for it.
    #[error(
        "client certificate {} has no private key: {} does not exist",
        identity.certificate.display(),
        identity.key.display()
    )]
    NoKey {
        /// The certificate and the place of the missing key.
        identity: ClientCertificate,
    },
    /// Users other than the owner may read the private key.
    #[error("private key {path} may be read by others")]
    ExposedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error("private key {path} is encrypted, which is not supported")]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The client certificate and its key do not match, or are of an unknown kind.
    #[error(
        "client certificate {} cannot be used with key {}",
        identity.certificate.display(),
        identity.key.display()
    )]
    UnusableIdentity {
        /// Both files.
        identity: ClientCertificate,
        /// The reason.
        #[source]
        error: rustls::Error,
    },
    /// The TLS library rejected the settings.
    #[error("TLS cannot be set up")]
    Library(#[source] rustls::Error),
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
