use rcgen::{
    BasicConstraints as Constraints, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;

use super::*;

/// Made by `openssl x509 -req` without extensions, valid for 100 years, CN = localhost.
const VERSION_ONE: &str = include_str!("version_one.pem");

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("valid");
    params.is_ca = IsCa::Ca(Constraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let certificate = params.self_signed(&key).expect("signed").der().clone();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

fn server(authority: &Authority, names: &[&str]) -> CertificateDer<'static> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names)
        .expect("valid")
        .signed_by(&KeyPair::generate().expect("a key"), &authority.issuer)
        .expect("signed")
        .der()
        .clone()
}

fn verify(
    check: Check,
    trusted: &CertificateDer<'static>,
    certificate: &CertificateDer<'static>,
    name: &'static str,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let now = UnixTime::now();
    ServerVerifier::new(
        check,
        roots,
        vec![trusted.clone()],
        ring::default_provider().signature_verification_algorithms,
    )
    .verify_server_cert(certificate, &[], &ServerName::try_from(name).expect("a name"), &[], now)
    .map(|_| ())
    .map_err(|error| error.to_string())
}

#[test]
fn each_check_refuses_what_it_should() {
    let (ours, theirs) = (authority(), authority());
    let certificate = server(&ours, &["db", "10.0.0.1"]);
    for (check, trusted, name, accepted) in [
        (Check::AuthorityAndName, &ours, "db", true),
        (Check::AuthorityAndName, &ours, "10.0.0.1", true),
        (Check::AuthorityAndName, &ours, "other", false),
        (Check::AuthorityAndName, &theirs, "db", false),
        (Check::Authority, &ours, "other", true),
        (Check::Authority, &theirs, "db", false),
        (Check::Nothing, &theirs, "other", true),
    ] {
        let verified = verify(check, &trusted.certificate, &certificate, name);
        assert_eq!(verified.is_ok(), accepted, "{check:?} {name} {verified:?}");
    }
}

#[test]
fn a_self_signed_server_is_trusted_by_its_own_certificate_only() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["db".to_owned()]).expect("valid");
    params.is_ca = IsCa::Ca(Constraints::Unconstrained);
    let own = params.self_signed(&key).expect("signed").der().clone();
    assert_eq!(verify(Check::AuthorityAndName, &own, &own, "db"), Ok(()));
    assert!(verify(Check::AuthorityAndName, &own, &own, "other").is_err());
    let error = verify(Check::Authority, &authority().certificate, &own, "db").expect_err("a CA");
    assert!(error.contains("Authority"), "{error}");

    params.not_after = date_time_ymd(2020, 1, 1);
    params.not_before = date_time_ymd(2019, 1, 1);
    let expired = params.self_signed(&key).expect("signed").der().clone();
    assert!(verify(Check::Authority, &expired, &expired, "db").is_err());
}

#[test]
fn a_version_one_certificate_is_named_as_such() {
    let old = CertificateDer::from_pem_slice(VERSION_ONE.as_bytes()).expect("a certificate");
    let trusted = authority().certificate;
    let error = verify(Check::Authority, &trusted, &old, "localhost").expect_err("refused");
    assert!(error.contains("VersionOne"), "{error}");
    assert_eq!(verify(Check::Nothing, &trusted, &old, "localhost"), Ok(()));
    assert_eq!(verify(Check::Authority, &old, &old, "localhost"), Ok(()));
    let error = verify(Check::AuthorityAndName, &old, &old, "localhost").expect_err("no name");
    assert!(error.contains("VersionOne"), "{error}");
}
