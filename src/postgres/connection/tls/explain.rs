//! Hints for connections that failed because of TLS.

use std::error::Error;
use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};

use super::verifier::Fault;

/// Returns a hint for a connection that failed because of TLS; `None` if TLS is not the reason.
pub fn explain(error: &tokio_postgres::Error) -> Option<String> {
    match cause(error)? {
        Cause::NotOffered => Some(
            "TLS is off on the server (ssl = off); turn it on, or use sslmode=disable on a trusted \
             network"
                .to_owned(),
        ),
        Cause::Library(rustls::Error::InvalidCertificate(reason)) => Some(of_certificate(reason)),
        Cause::Library(rustls::Error::AlertReceived(alert)) => of_alert(*alert),
        Cause::Library(_) => None,
    }
}

enum Cause<'a> {
    NotOffered,
    Library(&'a rustls::Error),
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<Cause<'a>> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(Cause::Library(error));
    }
    // The driver has no kind for this error; its tests pin the text.
    if error.to_string() == "server does not support TLS" {
        return Some(Cause::NotOffered);
    }
    // `source` of an io error skips the error that it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => cause(inner),
        None => cause(error.source()?),
    }
}

fn of_certificate(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => {
            "the server's certificate does not come from an authority in sslrootcert: name the \
             file of the authority that signed it, or find out which server answers"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            of_name(expected, presented)
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: check this machine's clock".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Fault>() {
            Some(Fault::VersionOne) => {
                "the server's certificate is X.509 version 1 and holds no host name: re-issue it \
                 with one (openssl x509 -req ... -extfile <(echo subjectAltName=DNS:<host>))"
                    .to_owned()
            }
            Some(Fault::Authority) => {
                "the server shows an authority's certificate (CA:TRUE) as its own: name exactly \
                 that certificate in sslrootcert, or issue one for the server (openssl req -x509 \
                 ... -addext basicConstraints=CA:FALSE -addext subjectAltName=DNS:<host>)"
                    .to_owned()
            }
            None => format!("the server's certificate cannot be used: {other}"),
        },
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

fn of_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let kind = match expected {
        ServerName::IpAddress(_) => "IP",
        _ => "DNS",
    };
    let expected = expected.to_str();
    if presented.is_empty() {
        return format!(
            "the server's certificate names no host (its common name does not count): re-issue \
             it with subjectAltName={kind}:{expected}"
        );
    }
    let presented: Vec<String> = presented.iter().map(|name| plain_name(name)).collect();
    format!(
        "the server's certificate is for {}, not for {expected}: connect by that name, or \
         re-issue it with subjectAltName={kind}:{expected}",
        presented.join(", ")
    )
}

/// Turns rustls's `DnsName("db")` into `db`, escaped for terminals.
fn plain_name(presented: &str) -> String {
    let inner =
        presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    inner.trim_matches('"').escape_debug().to_string()
}

fn of_alert(alert: AlertDescription) -> Option<String> {
    match alert {
        AlertDescription::CertificateRequired => {
            Some("the server requires a client certificate: set sslcert and sslkey".to_owned())
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate => Some(
            "the server rejected the client certificate: sslcert must come from an authority in \
             the server's ssl_ca_file"
                .to_owned(),
        ),
        AlertDescription::ProtocolVersion => {
            Some("the server supports none of the allowed TLS versions (1.2 and 1.3)".to_owned())
        }
        _ => None,
    }
}
