//! libpq's connection parameters against real servers, with psql as the oracle.

#[path = "harness/cluster.rs"]
mod cluster;
mod conninfo_support;
#[path = "harness/server_programs.rs"]
mod server_programs;

use conninfo_support::{Person, Servers, servers};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    Connected,
    Refused,
}
use Expect::{Connected, Refused};

/// Checks that psql, our driver, and a psql told by us end up in one place, or nowhere.
#[track_caller]
fn agree(person: &Person, servers: &Servers, text: Option<&str>, expected: Expect) {
    let text = text.map(|text| servers.fill(text));
    let text = text.as_deref();
    let psql = person.by_psql(text);
    let driver = person.by_driver(text);
    let outcome = if psql.is_ok() { Connected } else { Refused };
    assert_eq!(outcome, expected, "psql {text:?}: {psql:?}, ours: {driver:?}");
    match psql {
        Ok(place) => {
            assert_eq!(driver.as_ref(), Ok(&place), "{text:?}");
            assert_eq!(person.by_child(text), Ok(place), "child of {text:?}");
        }
        Err(complaint) => {
            assert!(driver.is_err(), "psql refused {text:?} ({complaint}), we reached {driver:?}");
        }
    }
}

#[test]
fn psql_and_the_driver_reach_the_same_place() {
    let servers = servers();
    for (text, expected) in [
        ("postgresql://app:s3cret@localhost:{tls}/saas", Connected),
        ("postgres://app:s3cret@127.0.0.1:{plain}/saas", Connected),
        ("postgresql://app:wrong@localhost:{tls}/saas", Refused),
        ("postgresql://app@localhost:{tls}/saas", Refused),
        ("postgresql://app:s3cret@localhost:{tls}/absent", Refused),
        ("postgresql://web:p%40ss%3Aw%2Fr%5Cd@localhost:{tls}/saas", Connected),
        (r"host=localhost port={tls} user=web password=p@ss:w/r\\d dbname=saas", Connected),
        (r"host=localhost port={tls} user=web password='p@ss:w/r\\d' dbname = saas", Connected),
        ("postgresql://app@{escaped}:{tls}/saas", Connected),
        ("postgresql://app@localhost:1/saas?host={socket}&port={tls}", Connected),
        ("postgresql:///saas?host={socket}&port={tls}&user=app", Connected),
        ("host={socket} port={tls} user=app", Refused),
        ("host={socket} port={tls} user=app dbname=saas sslmode=require", Connected),
        ("host={socket} port={tls} user=app dbname=saas sslmode=verify-full", Connected),
        (
            "hostaddr=127.0.0.1 port={tls} user=app password=s3cret dbname=saas sslmode=require",
            Connected,
        ),
        (
            "hostaddr=127.0.0.1 host=nowhere.invalid port={tls} user=app password=s3cret dbname=saas",
            Connected,
        ),
        (
            "host=nowhere.invalid,localhost port={tls} user=app password=s3cret dbname=saas",
            Connected,
        ),
        ("postgresql://app:s3cret@127.0.0.1:1,localhost:{tls}/saas", Connected),
        ("host=/nowhere,{socket} port={tls} user=app dbname=saas sslmode=require", Connected),
        ("host=a,b,c port=1,2 user=app", Refused),
        (
            "host={socket} port={tls} user=app dbname=saas target_session_attrs=read-write",
            Connected,
        ),
        ("host={socket} port={tls} user=app dbname=saas target_session_attrs=primary", Connected),
        ("host={socket} port={tls} user=app dbname=saas target_session_attrs=read-only", Refused),
        ("host={socket} port={tls} user=app dbname=saas target_session_attrs=", Refused),
        ("host={socket} port={tls} user=app dbname=saas options='-c work_mem=1234kB'", Connected),
        ("postgresql://app@{escaped}:{tls}/saas?options=-c%20work_mem%3D77kB", Connected),
        ("host={socket} port={tls} user=app dbname=saas application_name='a b'", Connected),
        (
            "host={socket} port={tls} user=app dbname=saas connect_timeout=60 keepalives=0",
            Connected,
        ),
        ("host={socket} port={tls} user=app dbname=saas connect_timeout=", Refused),
        ("host={socket} port={tls} user=app dbname=saas gssencmode=disable", Connected),
        ("host={socket} port={tls} user=app dbname=saas replication=off", Connected),
        ("host={socket} port={tls} user=app dbname=saas hots=x", Refused),
        ("host={socket} port={tls} user=app dbname='saas", Refused),
        ("host={socket} port={tls} user=app user=web user=app dbname=saas", Connected),
        (
            "host=localhost port={tls} user=app password=s3cret dbname=saas channel_binding=require",
            Connected,
        ),
        (
            "host=localhost port={plain} user=app password=s3cret dbname=saas channel_binding=require",
            Refused,
        ),
    ] {
        agree(&Person::new(&[], &servers), &servers, Some(text), expected);
    }
}

#[test]
fn variables_fill_what_the_text_leaves_open() {
    let servers = servers();
    let all: &[(&str, &str)] = &[
        ("PGHOST", "localhost"),
        ("PGPORT", "{tls}"),
        ("PGUSER", "app"),
        ("PGPASSWORD", "s3cret"),
        ("PGDATABASE", "saas"),
        ("PGAPPNAME", "from env"),
        ("PGOPTIONS", "-c work_mem=99kB"),
        ("PGSSLMODE", "require"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ];
    let person = Person::new(all, &servers);
    agree(&person, &servers, None, Connected);
    agree(&person, &servers, Some("port={plain}"), Refused);
    agree(&person, &servers, Some("port={plain} sslmode=prefer"), Connected);
    agree(&person, &servers, Some("postgresql://:{tls}/postgres"), Connected);
    agree(&person, &servers, Some("user=web"), Refused);

    let socket = [("PGHOST", "{socket}"), ("PGPORT", "{tls}"), ("PGUSER", "app")];
    for (extra, expected) in [
        (("PGDATABASE", "saas"), Connected),
        (("PGHOSTADDR", "127.0.0.1"), Refused),
        (("PGSSLMODE", ""), Refused),
        (("PGREQUIRESSL", "1"), Refused),
    ] {
        let person = Person::new(&[&socket[..], &[extra]].concat(), &servers);
        agree(&person, &servers, None, expected);
    }
}

#[test]
fn service_files_win_over_variables_and_lose_to_the_text() {
    let servers = servers();
    let person = Person::new(
        &[
            ("PGSERVICE", "app"),
            ("PGPORT", "1"),
            ("PGDATABASE", "absent"),
            ("PGSYSCONFDIR", "/nowhere"),
        ],
        &servers,
    );
    let file = servers.fill(
        "# comment\n[app]\nhost={socket}\nport={tls}\nuser=app\ndbname=saas\n\n\
         [plain]\nhost=localhost\nport={plain}\nuser=app\npassword=s3cret\ndbname=saas\n\n\
         [bad]\nhost = x\n",
    );
    person.keep(".pg_service.conf", &file, 0o644);
    agree(&person, &servers, None, Connected);
    agree(&person, &servers, Some("dbname=postgres"), Connected);
    agree(&person, &servers, Some("service=plain"), Connected);
    agree(&person, &servers, Some("postgresql://?service=plain"), Connected);
    agree(&person, &servers, Some("service=bad"), Refused);
    agree(&person, &servers, Some("service=absent"), Refused);
}

#[test]
fn the_password_file_is_read_as_libpq_reads_it() {
    let servers = servers();
    let place = "host=localhost port={tls} user=app dbname=saas";
    for (file, mode, text, expected) in [
        ("localhost:{tls}:saas:app:s3cret\n", 0o600, place, Connected),
        ("#c\nlocalhost:*:*:app:s3cret\r\n", 0o600, place, Connected),
        ("*:*:*:*:wrong\nlocalhost:*:*:app:s3cret\n", 0o600, place, Refused),
        ("localhost:{tls}:saas:app:s3cret\n", 0o640, place, Refused),
        ("127.0.0.1:*:*:*:s3cret\n", 0o600, place, Refused),
        (
            "127.0.0.1:*:*:*:s3cret\n",
            0o600,
            "hostaddr=127.0.0.1 port={tls} user=app dbname=saas",
            Connected,
        ),
        (
            "localhost:*:*:web:p@ss\\:w/r\\\\d\n",
            0o600,
            "host=localhost port={tls} user=web dbname=saas",
            Connected,
        ),
        (
            "{socket}:*:*:web:p@ss\\:w/r\\\\d\n",
            0o600,
            "host={socket} port={tls} user=web dbname=saas",
            Connected,
        ),
        (
            "localhost:{plain}:*:*:secret\nlocalhost:{tls}:*:*:s3cret\n",
            0o600,
            "host=nowhere.invalid,localhost port={plain},{tls} user=app dbname=saas",
            Connected,
        ),
    ] {
        let person = Person::new(&[], &servers);
        person.keep(".pgpass", &servers.fill(file), mode);
        agree(&person, &servers, Some(text), expected);
    }
    let person = Person::new(&[("PGPASSFILE", "{files}/elsewhere")], &servers);
    person.keep(".pgpass", "*:*:*:*:s3cret\n", 0o600);
    agree(&person, &servers, Some(place), Refused);
    agree(
        &person,
        &servers,
        Some(&format!("{place} passfile={}/.pgpass", person.home.path().display())),
        Connected,
    );
}

const LOGIN: &str = "user=app password=s3cret dbname=saas";

#[test]
fn each_sslmode_keeps_its_promise() {
    let servers = servers();
    for (text, expected) in [
        ("host=localhost port={tls} sslmode=disable", Connected),
        ("host=localhost port={tls} sslmode=prefer", Connected),
        ("host=localhost port={tls} sslmode=require", Connected),
        ("host=localhost port={tls} sslmode=require sslrootcert={files}/ca.crt", Connected),
        ("host=localhost port={tls} sslmode=require sslrootcert={files}/other-ca.crt", Refused),
        ("host=localhost port={tls} sslmode=require sslrootcert={files}/absent", Connected),
        ("host=localhost port={tls} sslmode=verify-ca", Refused),
        ("host=localhost port={tls} sslmode=verify-full", Refused),
        ("host=localhost port={tls} sslmode=verify-ca sslrootcert={files}/ca.crt", Connected),
        ("host=127.0.0.1 port={tls} sslmode=verify-ca sslrootcert={files}/ca.crt", Connected),
        ("host=localhost port={tls} sslmode=verify-ca sslrootcert={files}/other-ca.crt", Refused),
        ("host=localhost port={tls} sslmode=verify-full sslrootcert={files}/ca.crt", Connected),
        ("host=localhost port={tls} sslmode=verify-full sslrootcert={files}/other-ca.crt", Refused),
        ("host=127.0.0.1 port={tls} sslmode=verify-full sslrootcert={files}/ca.crt", Refused),
        ("hostaddr=127.0.0.1 port={tls} sslmode=verify-full sslrootcert={files}/ca.crt", Refused),
        (
            "host=localhost hostaddr=127.0.0.1 port={tls} sslmode=verify-full sslrootcert={files}/ca.crt",
            Connected,
        ),
        ("host=localhost port={plain} sslmode=prefer", Connected),
        ("host=localhost port={plain} sslmode=require", Refused),
        ("host=localhost port={plain} sslmode=verify-full sslrootcert={files}/ca.crt", Refused),
        ("host=localhost port={tls} sslmode=require ssl_min_protocol_version=TLSv1.3", Connected),
        ("host=localhost port={tls} sslmode=require ssl_max_protocol_version=TLSv1.2", Connected),
        ("host=localhost port={tls} sslmode=require sslsni=0", Connected),
        // The manual's own recipes make certificates that rustls alone would not take.
        ("host=localhost port={old} sslmode=prefer", Connected),
        ("host=localhost port={old} sslmode=require", Connected),
        ("host=localhost port={old} sslmode=require channel_binding=require", Connected),
        (
            "host=localhost port={old} sslmode=verify-ca sslrootcert={files}/version_one.crt",
            Connected,
        ),
        ("host=localhost port={old} sslmode=verify-ca sslrootcert={files}/ca.crt", Refused),
        ("host=localhost port={expired} sslmode=require", Connected),
        ("host=localhost port={expired} sslmode=verify-ca sslrootcert={files}/ca.crt", Refused),
        ("host=localhost port={expired} sslmode=verify-full sslrootcert={files}/ca.crt", Refused),
    ] {
        let text = format!("{text} {LOGIN}");
        agree(&Person::new(&[], &servers), &servers, Some(&text), expected);
    }
}

#[test]
fn a_root_certificate_at_home_is_used() {
    let servers = servers();
    for (file, expected) in [("ca.crt", Connected), ("other-ca.crt", Refused)] {
        let person = Person::new(&[], &servers);
        let authority = std::fs::read_to_string(servers.files.join(file)).expect("readable");
        person.keep(".postgresql/root.crt", &authority, 0o644);
        for mode in ["require", "verify-ca", "verify-full"] {
            let text = format!("host=localhost port={{tls}} sslmode={mode} {LOGIN}");
            agree(&person, &servers, Some(&text), expected);
        }
    }
}

#[test]
fn a_client_certificate_logs_in() {
    let servers = servers();
    let place = "host=localhost port={tls} user=certified dbname=saas sslmode=require";
    let named = "sslcert={files}/client.crt sslkey={files}/client.key";
    for (words, expected) in [
        (named, Connected),
        ("sslcert={files}/expired-client.crt sslkey={files}/expired-client.key", Refused),
        ("", Refused),
        ("sslcert={files}/client.crt", Refused),
        ("sslcert={files}/client.crt sslkey={files}/server.key", Refused),
        ("sslcert={files}/client.crt sslkey={files}/absent.key", Refused),
        ("sslcert={files}/absent.crt sslkey={files}/client.key", Refused),
        ("sslcert={files}/server.crt sslkey={files}/server.key", Refused),
    ] {
        let text = format!("{place} {words}");
        agree(&Person::new(&[], &servers), &servers, Some(&text), expected);
    }

    let read = |name| std::fs::read_to_string(servers.files.join(name)).expect("readable");
    // A key that others may read is refused, not ignored.
    for (mode, expected) in [(0o600, Connected), (0o644, Refused)] {
        let person = Person::new(&[], &servers);
        person.keep(".postgresql/postgresql.crt", &read("client.crt"), 0o644);
        person.keep(".postgresql/postgresql.key", &read("client.key"), mode);
        agree(&person, &servers, Some(place), expected);
    }
}

#[test]
fn a_refused_certificate_comes_with_the_way_out() {
    let servers = servers();
    for (text, hint) in [
        ("port={plain} sslmode=require", "ssl = off"),
        ("port={tls} sslmode=verify-full", "sslrootcert=system"),
        (
            "port={tls} sslmode=verify-full sslrootcert={files}/other-ca.crt",
            "does not come from an authority in sslrootcert",
        ),
        (
            "port={tls} hostaddr=127.0.0.1 host=db.example.com sslmode=verify-full sslrootcert={files}/ca.crt",
            "is for localhost, not for db.example.com: connect by that name, or re-issue it with subjectAltName=DNS:db.example.com",
        ),
        (
            "port={tls} host=127.0.0.1 sslmode=verify-full sslrootcert={files}/ca.crt",
            "is for localhost, not for 127.0.0.1: connect by that name, or re-issue it with subjectAltName=IP:127.0.0.1",
        ),
        ("port={old} sslmode=verify-full sslrootcert={files}/version_one.crt", "X.509 version 1"),
        (
            "port={expired} sslmode=verify-full sslrootcert={files}/ca.crt",
            "the server's certificate has expired: renew it",
        ),
    ] {
        let text = servers.fill(&format!("host=localhost {LOGIN} {text}"));
        let person = Person::new(&[], &servers);
        let said = person.by_driver(Some(&text)).expect_err(&text);
        assert!(said.contains(hint), "{text}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
