//! Verifies the server's certificate as `sslmode` requires.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;

/// How a server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Not at all.
    Nothing,
    /// It must come from a trusted authority.
    Authority,
    /// It must come from a trusted authority and be for this host.
    AuthorityAndName,
}

/// A certificate that psql would accept and rustls cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// X.509 version 1, which has no extensions and therefore no host name.
    #[error("it is an X.509 version 1 certificate")]
    VersionOne,
    /// An authority's certificate (`CA:TRUE`) as the server's.
    #[error("it is an authority's certificate, not a server's")]
    Authority,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// Verifies certificates for one connection.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    check: Check,
    roots: RootCertStore,
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Returns a verifier; `trusted` are the certificates of `sslrootcert`.
    pub(super) const fn new(
        check: Check,
        roots: RootCertStore,
        trusted: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { check, roots, trusted, algorithms }
    }

    fn verify_authority(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A self-signed server certificate that is its own sslrootcert (the manual's first recipe,
        // section 19.9.5) is trusted, although rustls does not accept it as a chain.
        if self.trusted.iter().any(|root| root == certificate) {
            return verify_dates(certificate, now);
        }
        let parsed = parse(certificate)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .map_err(
            |error| {
                if is_authority(certificate) { Fault::Authority.into() } else { error }
            },
        )
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Nothing {
            self.verify_authority(certificate, intermediates, now)?;
        }
        if self.check == Check::AuthorityAndName {
            verify_server_name(&parse(certificate)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        parse(certificate)?;
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    // Signatures are verified even where certificates are not: channel binding relies on the server
    // having the key of the certificate that it sends.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match decoded(certificate) {
            // The manual's recipe for a private authority (section 19.9.5) creates these, and rustls
            // reads only their bare key.
            Some(decoded) if decoded.tbs_certificate.version == Version::V1 => {
                let key = decoded
                    .tbs_certificate
                    .subject_public_key_info
                    .to_der()
                    .map_err(|_| CertificateError::BadEncoding)?;
                verify_tls13_signature_with_raw_key(
                    message,
                    &SubjectPublicKeyInfoDer::from(key),
                    signature,
                    &self.algorithms,
                )
            }
            _ => verify_tls13_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn decoded(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate).ok()
}

fn parse<'a>(certificate: &'a CertificateDer<'a>) -> Result<ParsedCertificate<'a>, Error> {
    ParsedCertificate::try_from(certificate).map_err(|error| match decoded(certificate) {
        Some(decoded) if decoded.tbs_certificate.version == Version::V1 => Fault::VersionOne.into(),
        _ => error,
    })
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    decoded(certificate)
        .and_then(|decoded| decoded.tbs_certificate.get::<BasicConstraints>().ok().flatten())
        .is_some_and(|(_, constraints)| constraints.ca)
}

fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let decoded = decoded(certificate).ok_or(CertificateError::BadEncoding)?;
    let validity = decoded.tbs_certificate.validity;
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    if now.as_secs() < seconds(validity.not_before) {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > seconds(validity.not_after) {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
