//! TLS with libpq's meaning of `sslmode` (manual section 34.19), on rustls and ring.
//!
//! Imports `conninfo`. Start reading at [`connector`].

mod error;
mod explain;
mod identity;
mod verifier;

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::TlsError;
pub use explain::explain;

use super::conninfo::{ConnectOptions, Protection, Roots, Security, SslMode, TlsVersion};
use verifier::{Check, ServerVerifier};

/// The ALPN protocol name for TLS without negotiation (manual section 54.2.11).
const PROTOCOL: &[u8] = b"postgresql";

/// Returns the driver's TLS connector for a connection.
///
/// Reads the root certificates and the client certificate, unless every target is a Unix socket, which
/// never uses TLS.
pub fn connector(options: &ConnectOptions) -> Result<MakeRustlsConnect, TlsError> {
    let security = options.security();
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let uses_tls =
        options.protection() != Protection::LocalSocket && security.mode != SslMode::Disable;

    let verifier = if uses_tls {
        verifier(security, algorithms)?
    } else {
        ServerVerifier::new(Check::Nothing, RootCertStore::empty(), Vec::new(), algorithms)
    };
    let versions: Vec<&'static rustls::SupportedProtocolVersion> =
        [(TlsVersion::V12, &rustls::version::TLS12), (TlsVersion::V13, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| (security.oldest..=security.newest).contains(version))
            .map(|(_, version)| version)
            .collect();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &security.identity {
        Some(identity) if uses_tls => {
            let (chain, key) = identity::load(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::UnusableIdentity { identity: identity.clone(), error })?
        }
        _ => builder.with_no_client_auth(),
    };
    config.enable_sni = security.names_host;
    if security.is_direct {
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(
    security: &Security,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
) -> Result<ServerVerifier, TlsError> {
    let check = match security.effective_mode() {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Check::Nothing,
        SslMode::VerifyCa => Check::Authority,
        SslMode::VerifyFull => Check::AuthorityAndName,
    };
    let mut store = RootCertStore::empty();
    let mut trusted = Vec::new();
    match (check, &security.roots) {
        (Check::Nothing, _) => {}
        (_, Roots::Missing(looked_for)) => {
            return Err(TlsError::NoRoots {
                sslmode: security.mode.name(),
                looked_for: looked_for.clone(),
            });
        }
        (_, Roots::System) => {
            let found = rustls_native_certs::load_native_certs();
            // A system's collection often contains a few certificates that cannot be parsed.
            if store.add_parsable_certificates(found.certs).0 == 0 {
                return Err(TlsError::NoSystemRoots);
            }
        }
        (_, Roots::File(path)) => {
            trusted = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| TlsError::UnreadablePem { path: path.clone(), error })?;
            if trusted.is_empty() {
                return Err(TlsError::NoCertificate { path: path.clone() });
            }
            for certificate in &trusted {
                store
                    .add(certificate.clone())
                    .map_err(|error| TlsError::UnusableRoot { path: path.clone(), error })?;
            }
        }
    }
    Ok(ServerVerifier::new(check, store, trusted, algorithms))
}
