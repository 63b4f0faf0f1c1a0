use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use tokio_postgres::config::{Host as DriverHost, SslMode as DriverMode};

use super::child::percent_encoded;
use super::*;

const USER_ONLY: [(&str, &str); 1] = [("USER", "me")];

fn resolve(text: &str) -> Result<ConnectOptions, ConnInfoError> {
    ConnectOptions::resolve(Some(text), &Environment::from_pairs(USER_ONLY))
}

fn resolved(text: &str) -> ConnectOptions {
    resolve(text).expect(text)
}

fn refusal(text: &str) -> String {
    resolve(text).expect_err(text).to_string()
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

/// The parameters that `resolve` gives with these variables, as `value (origin)`.
fn parameters(text: Option<&str>, variables: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
    ConnectOptions::resolve(
        text,
        &Environment::from_pairs(variables.iter().copied().chain(USER_ONLY)),
    )
    .expect("valid")
    .parameters()
    .map(|(name, value, origin)| (name, format!("{value} ({origin})")))
    .collect()
}

#[test]
fn text_wins_over_service_over_environment_over_default() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("services");
    fs::write(&file, "[app]\nhost=service\nport=2\ndbname=service\n").expect("written");
    let file = file.display().to_string();
    let parameters = parameters(
        Some("host=text service=app"),
        &[
            ("PGSERVICEFILE", &file),
            ("PGHOST", "env"),
            ("PGPORT", "3"),
            ("PGUSER", "env"),
            ("PGPASSWORD", "secret"),
        ],
    );
    assert_eq!(parameters["host"], "text (connection string)");
    assert_eq!(parameters["port"], "2 (service 'app')");
    assert_eq!(parameters["user"], "env (PGUSER)");
    assert_eq!(parameters["dbname"], "service (service 'app')");
    assert_eq!(parameters["password"], "******** (PGPASSWORD)");
    assert_eq!(parameters["sslmode"], "prefer (default)");
    assert_eq!(parameters["application_name"], "pricesync (default)");
}

#[test]
fn a_service_that_nobody_defines_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().display().to_string();
    let environment =
        Environment::from_pairs([("HOME", &*home), ("PGSYSCONFDIR", &*home), ("PGSERVICE", "x")]);
    let error = ConnectOptions::resolve(None, &environment).expect_err("undefined");
    assert_eq!(error.to_string(), "service 'x' is not defined");
    let environment =
        Environment::from_pairs([("PGSERVICEFILE", "/nowhere/services"), ("PGSERVICE", "x")]);
    let error = ConnectOptions::resolve(None, &environment).expect_err("no file");
    assert_eq!(error.to_string(), "service file /nowhere/services cannot be read");
}

#[test]
fn the_defaults_are_libpqs() {
    let options =
        ConnectOptions::resolve(None, &Environment::from_pairs(USER_ONLY)).expect("valid");
    assert!(options.targets()[0].is_socket());
    assert_eq!(options.targets()[0].port, 5432);
    assert_eq!((options.user(), options.database()), ("me", "me"));
    assert_eq!(options.protection(), Protection::LocalSocket);
    let empty = Environment::from_pairs::<&str, &str>([]);
    assert!(matches!(ConnectOptions::resolve(None, &empty), Err(ConnInfoError::NoUser)));
}

#[test]
fn the_place_is_described_without_the_password() {
    for (text, place) in [
        ("postgresql://app:s3cret@db.example.com/saas", "app@db.example.com:5432/saas"),
        ("postgres://a:s3cret@x:1,y:2/d", "a@x:1,y:2/d"),
        ("host=/run/pg port=6 user=a dbname=d password=s3cret", "a@/run/pg:6/d"),
        ("postgresql://a@[::1]/d", "a@[::1]:5432/d"),
        ("hostaddr=10.0.0.1 host=db password=s3cret", "me@db:5432/me"),
        ("  postgresql://h/d\n", "me@h:5432/d"),
        ("host=h dbname='a\u{1b}[2J'", "me@h:5432/a\\u{1b}[2J"),
    ] {
        let options = resolved(text);
        assert_eq!(options.describe(), place);
        assert!(!format!("{options:?}").contains("s3cret"), "{options:?}");
        assert!(!format!("{:?}", options.parameters().collect::<Vec<_>>()).contains("s3cret"));
    }
}

#[test]
fn unsupported_parameters_are_refused() {
    for (text, message) in [
        (
            "sslcrl=/x",
            "cannot use sslcrl (connection string): certificate revocation lists are not supported",
        ),
        (
            "gssencmode=require",
            "cannot use gssencmode (connection string): GSSAPI encryption is not supported; use TLS (sslmode)",
        ),
        (
            "requirepeer=postgres",
            "cannot use requirepeer (connection string): the owner of the server's socket is not checked",
        ),
        (
            "replication=database",
            "cannot use replication (connection string): migrations do not run on a replication connection",
        ),
        (
            "target_session_attrs=prefer-standby",
            "cannot use target_session_attrs (connection string): migrations need the primary, not a standby",
        ),
        (
            "host=@abstract",
            "cannot use host (connection string): sockets in the abstract namespace ('@...') are not supported",
        ),
        (
            "sslmode=verify_full",
            "sslmode 'verify_full' (connection string) is not valid: expected disable, allow, prefer, require, verify-ca or verify-full",
        ),
        (
            "sslmode=require sslrootcert=system",
            "sslmode=require is too weak for sslrootcert=system",
        ),
        ("sslnegotiation=direct", "sslmode=prefer is too weak for sslnegotiation=direct"),
        (
            "hostaddr=1.2.3.4 sslmode=verify-full",
            "sslmode=verify-full needs a host name, and only hostaddr is given",
        ),
        (
            "connect_timeout=soon",
            "connect_timeout 'soon' (connection string) is not valid: expected a whole number",
        ),
        (
            "channel_binding=",
            "channel_binding '' (connection string) is not valid: expected disable, prefer or require",
        ),
        ("mydb", "the connection string is neither a postgresql:// URL nor key=value pairs"),
        ("postgresql+asyncpg://u:p@h/d", "'postgresql+asyncpg://' is not a URL for PostgreSQL"),
    ] {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn values_that_request_nothing_are_accepted() {
    resolved("gssencmode=disable krbsrvname=postgres sslcompression=0 sslcrl='' replication=off");
    resolved("gssencmode=prefer sslnegotiation=postgres sslpassword=x load_balance_hosts=random");
    assert_eq!(resolved("client_encoding=UTF-8").warnings(), [""; 0]);
    assert_eq!(
        resolved("client_encoding=latin1").warnings(),
        ["ignored client_encoding 'latin1' (connection string): pricesync uses UTF-8"]
    );
}

#[test]
fn protection_is_said_in_words() {
    for (text, protection) in [
        ("host=/s sslmode=verify-full", Protection::LocalSocket),
        ("host=h sslmode=disable", Protection::Plaintext),
        ("host=h", Protection::Opportunistic),
        ("host=/s,h", Protection::Opportunistic),
        ("host=h sslmode=require", Protection::Unverified),
        ("host=h sslmode=require sslrootcert=/etc/passwd", Protection::AuthorityVerified),
        ("host=h sslmode=verify-full", Protection::Verified),
        ("host=h sslrootcert=system", Protection::Verified),
    ] {
        assert_eq!(resolved(text).protection(), protection, "{text}");
    }
    assert!(Protection::Verified.is_verified());
    assert!(!Protection::AuthorityVerified.is_verified());
}

#[test]
fn files_that_are_named_and_missing_are_warned_about() {
    let options = resolved("host=h sslmode=require sslrootcert=/none/a sslcert=/none/b");
    assert_eq!(
        options.warnings(),
        [
            "sslrootcert /none/a does not exist: the server's certificate is not checked",
            "sslcert /none/b does not exist: no client certificate is sent",
        ]
    );
}

#[test]
fn the_driver_is_told_everything() {
    let options = resolved(
        "host=h port=6 user=u dbname=d password=p options='-c a=b' connect_timeout=3 \
         tcp_user_timeout=1500 keepalives_idle=7 keepalives_interval=8 keepalives_count=9 \
         target_session_attrs=primary channel_binding=require sslmode=verify-full",
    );
    let driver = options.to_driver();
    let mut expected = Config::new();
    expected
        .host("h")
        .port(6)
        .user("u")
        .dbname("d")
        .password("p")
        .options("-c a=b")
        .application_name("pricesync")
        .connect_timeout(Duration::from_secs(3))
        .tcp_user_timeout(Duration::from_millis(1500))
        .keepalives_idle(Duration::from_secs(7))
        .keepalives_interval(Duration::from_secs(8))
        .keepalives_retries(9)
        .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite)
        .channel_binding(tokio_postgres::config::ChannelBinding::Require)
        .ssl_mode(DriverMode::Require);
    assert_eq!(driver, expected);
    assert_eq!(options.attempts(), [expected]);
}

#[test]
fn sockets_are_plain_and_addresses_have_a_name_for_tls() {
    let attempts = resolved("host=/s,h,:: sslmode=require").attempts();
    let modes: Vec<_> = attempts.iter().map(Config::get_ssl_mode).collect();
    assert_eq!(modes, [DriverMode::Disable, DriverMode::Require, DriverMode::Require]);
    let driver = resolved("host=h,/s,i port=1,2,3 sslmode=require").to_driver();
    assert_eq!(driver.get_hosts(), [DriverHost::Tcp("h".into()), DriverHost::Tcp("i".into())]);
    assert_eq!(driver.get_ports(), [1, 3]);
    let driver = resolved("hostaddr=127.0.0.1 sslmode=require").to_driver();
    assert_eq!(driver.get_hosts(), [DriverHost::Tcp("127.0.0.1".into())]);
    assert_eq!(driver.get_hostaddrs().len(), 1);
}

#[test]
fn each_host_has_its_own_password_from_the_password_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pass");
    private(&path, "a:*:*:*:one\nb:*:*:*:two\n");
    let text = format!("host=a,b,c user=u dbname=d passfile={}", path.display());
    let options = resolved(&text);
    let passwords: Vec<_> =
        options.attempts().iter().map(|config| config.get_password().map(<[u8]>::to_vec)).collect();
    assert_eq!(passwords, [Some(b"one".to_vec()), Some(b"two".to_vec()), None]);
    assert_eq!(options.to_driver().get_hosts().len(), 1);
    let child = options.child_environment();
    assert!(child.iter().all(|(name, _)| *name != "PGPASSWORD"));
    assert!(child.iter().any(|(name, _)| *name == "PGPASSFILE"));
    assert!(options.parameters().any(|(name, value, origin)| name == "password"
        && value == "********"
        && *origin == Origin::PasswordFile(path.clone())));
}

#[test]
fn a_given_password_keeps_the_password_file_shut() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pass");
    fs::write(&path, "*:*:*:*:file\n").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let text = format!("host=h passfile={}", path.display());
    assert_eq!(resolved(&text).warnings().len(), 1);
    assert!(!resolved(&text).has_password());
    let options = resolved(&format!("{text} password=text"));
    assert_eq!(options.warnings(), [""; 0]);
    assert_eq!(options.with_password("typed").to_driver().get_password(), Some(&b"typed"[..]));
}

#[test]
fn children_get_the_same_place_and_nothing_else() {
    let options = resolved("postgresql://u:p@h:6/d?sslmode=require&options=-c%20a%3Db")
        .with_application_name("pricesync shell")
        .with_database("other");
    let mut command = Command::new("psql");
    command.env("PGSERVICE", "elsewhere").env("PGSSLCRL", "/x");
    options.apply_to(&mut command);
    let given: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)))
        .collect();
    assert_eq!(
        given,
        [
            "PGAPPNAME=pricesync shell",
            "PGDATABASE=other",
            "PGHOST=h",
            "PGOPTIONS=-c a=b",
            "PGPASSWORD=p",
            "PGPORT=6",
            "PGSSLMODE=require",
            "PGUSER=u",
        ]
    );
    assert!(command.get_envs().any(|(name, value)| name == "PGSERVICE" && value.is_none()));
    assert_eq!(command.get_args().count(), 0);
}

#[test]
fn the_users_application_name_stays() {
    let named = resolved("application_name=mine").with_application_name("ours");
    assert_eq!(named.application_name(), "mine");
    let unnamed = resolved("host=h").with_application_name("ours");
    assert_eq!(unnamed.application_name(), "ours");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

proptest! {
    #[test]
    fn any_text_survives_a_url(
        user in "[^\0]{1,12}", password in "[^\0]{1,12}", database in "[^\0]{1,12}",
    ) {
        let url = format!(
            "postgresql://{}:{}@h/{}",
            percent_encoded(&user), percent_encoded(&password), percent_encoded(&database),
        );
        let driver = resolved(&url).to_driver();
        prop_assert_eq!(driver.get_user(), Some(&*user));
        prop_assert_eq!(driver.get_password(), Some(password.as_bytes()));
        prop_assert_eq!(driver.get_dbname(), Some(&*database));
    }

    #[test]
    fn any_text_survives_key_value_words(
        user in "[^\0]{1,12}", password in "[^\0]{1,12}", database in "[^\0]{1,12}",
    ) {
        let text = format!(
            "host=h user={} password = {} dbname={}",
            quoted(&user), quoted(&password), quoted(&database),
        );
        let driver = resolved(&text).to_driver();
        prop_assert_eq!(driver.get_user(), Some(&*user));
        prop_assert_eq!(driver.get_password(), Some(password.as_bytes()));
        prop_assert_eq!(driver.get_dbname(), Some(&*database));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}") {
        let _ = resolve(&text);
        let _ = resolve(&format!("postgresql://{text}"));
    }

    #[test]
    fn no_error_quotes_a_password_that_was_not_encoded(
        before in "[a-z@:/?#&=%\\[,]{0,6}", after in "[a-z@:/?#&=%\\],]{0,6}",
    ) {
        let url = format!("postgresql://u:{before}QZX7{after}@h/d");
        if let Err(error) = resolve(&url) {
            let said = format!("{error} {error:?} {:?}", error.hint());
            prop_assert!(!said.contains("QZX7"), "{}: {}", url, said);
        }
    }
}
