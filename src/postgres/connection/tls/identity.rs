//! The client certificate (manual section 34.19.2).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::postgres::connection::conninfo::ClientCertificate;

/// Reads the certificate chain and its key.
///
/// As libpq, rejects a key that other users may read: the mode must be 0600 or less, or 0640 or less if
/// root owns it.
pub(super) fn load(
    identity: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let unreadable = |path: &Path, error| TlsError::UnreadablePem { path: path.to_owned(), error };
    let chain = CertificateDer::pem_file_iter(&identity.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&identity.certificate, error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: identity.certificate.clone() });
    }

    let path = &identity.key;
    let Ok(metadata) = fs::metadata(path) else {
        return Err(TlsError::NoKey { identity: identity.clone() });
    };
    if is_exposed(metadata.mode(), metadata.uid()) {
        return Err(TlsError::ExposedKey { path: path.clone() });
    }
    let text = fs::read(path).map_err(|error| unreadable(path, pem::Error::Io(error)))?;
    if is_encrypted(&text) {
        return Err(TlsError::EncryptedKey { path: path.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| unreadable(path, error))?;
    Ok((chain, key))
}

const fn is_exposed(mode: u32, owner: u32) -> bool {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

/// Recognises PKCS#8's `BEGIN ENCRYPTED PRIVATE KEY` and the older `Proc-Type: 4,ENCRYPTED`.
fn is_encrypted(text: &[u8]) -> bool {
    text.windows(9).any(|window| window == b"ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roots_key_may_be_read_by_a_group() {
        for (mode, owner, exposed) in [
            (0o100_600, 1000, false),
            (0o100_400, 1000, false),
            (0o100_640, 1000, true),
            (0o100_640, 0, false),
            (0o100_660, 0, true),
            (0o100_644, 0, true),
        ] {
            assert_eq!(is_exposed(mode, owner), exposed, "{mode:o} {owner}");
        }
    }

    #[test]
    fn an_encrypted_key_is_named_as_such() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let identity = ClientCertificate {
            certificate: folder.path().join("client.crt"),
            key: folder.path().join("client.key"),
        };
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).expect("made");
        fs::write(&identity.certificate, certificate.cert.pem()).expect("written");
        for label in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        ] {
            fs::write(&identity.key, label).expect("written");
            fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o600)).expect("set");
            let error = load(&identity).expect_err("encrypted");
            assert!(matches!(error, TlsError::EncryptedKey { .. }), "{error:?}");
            assert!(error.hint().expect("a hint").contains("openssl pkey"));
        }
    }
}
