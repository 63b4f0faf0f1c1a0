//! Throw-away servers with a private authority, and two ways to connect to them.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::tls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_postgres::SimpleQueryMessage;

use crate::cluster::Cluster;
use crate::server_programs::{as_server, give, program};

/// Who, where, how: the same for psql and for the driver if both reached the same place.
const WHERE_AM_I: &str = "select concat_ws(' ', current_user, current_database(), \
     coalesce(host(inet_server_addr()), 'socket'), current_setting('port'), \
     (select ssl from pg_stat_ssl where pid = pg_backend_pid()), \
     nullif(nullif(current_setting('application_name'), 'psql'), 'pricesync'), \
     current_setting('work_mem'))";

const HBA: &str = "local all web scram-sha-256\nlocal all all trust\n\
     hostssl all certified 127.0.0.1/32 cert\nhostssl all certified ::1/128 cert\n\
     host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n";

const ROLES: &str = "create role app login password 's3cret'; \
     create role web login password 'p@ss:w/r\\d'; create role certified login;";

/// Settings of each server.
const SMALL: &[&str] = &[
    "shared_buffers=2MB",
    "max_connections=20",
    "max_wal_senders=0",
    "autovacuum=off",
    "client_min_messages=warning",
];

static SERVERS: Mutex<Weak<Servers>> = Mutex::new(Weak::new());

/// Four servers: one with TLS, one without, one with a version 1 certificate, one whose certificate has expired.
pub(crate) struct Servers {
    pub(crate) tls: Address,
    pub(crate) plain: Address,
    pub(crate) old: Address,
    pub(crate) expired: Address,
    pub(crate) files: PathBuf,
    _folder: tempfile::TempDir,
}

/// One of the servers, stopped when dropped.
pub(crate) struct Address {
    pub(crate) port: u16,
    /// The folder of its socket.
    pub(crate) socket: PathBuf,
    _server: Cluster,
}

/// Returns the servers that the tests which run right now share.
pub(crate) fn servers() -> Arc<Servers> {
    let mut shared = SERVERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let servers = Arc::new(Servers::start());
        *shared = Arc::downgrade(&servers);
        servers
    })
}

impl Servers {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        give(folder.path());
        let files = folder.path().join("files");
        fs::create_dir(&files).expect("a folder");
        certificates(&files);

        let data = folder.path().join("tls");
        Cluster::create(&data, "admin");
        write_for_server(&data.join("pg_hba.conf"), HBA);
        for copy in ["plain", "old", "expired"] {
            succeed(as_server("cp", folder.path()).arg("-a").args(["tls", copy]));
        }
        for (name, file) in
            [("ca.crt", "ca.crt"), ("server.crt", "server.crt"), ("server.key", "server.key")]
        {
            let text = fs::read_to_string(files.join(file)).expect("made above");
            write_for_server(&data.join(name), &text);
        }
        let old = folder.path().join("old");
        let version_one =
            include_str!("../../src/postgres/connection/tls/verifier/version_one.pem");
        let key = include_str!("../../src/postgres/connection/tls/verifier/version_one.key");
        fs::write(files.join("version_one.crt"), version_one).expect("written");
        write_for_server(&old.join("server.crt"), version_one);
        write_for_server(&old.join("server.key"), key);

        let expired = folder.path().join("expired");
        for end in ["crt", "key"] {
            let text = fs::read_to_string(files.join(format!("expired.{end}")));
            write_for_server(&expired.join(format!("server.{end}")), &text.expect("made above"));
        }

        Self {
            tls: Address::serve(&data, &["ssl=on", "ssl_ca_file=ca.crt"]),
            plain: Address::serve(&folder.path().join("plain"), &["ssl=off"]),
            old: Address::serve(&old, &["ssl=on"]),
            expired: Address::serve(&expired, &["ssl=on"]),
            files,
            _folder: folder,
        }
    }

    /// Replaces `{tls} {plain} {old} {expired}` by ports, `{socket}` by the first server's folder, and
    /// `{files}` by the folder of certificates.
    pub(crate) fn fill(&self, template: &str) -> String {
        template
            .replace("{tls}", &self.tls.port.to_string())
            .replace("{plain}", &self.plain.port.to_string())
            .replace("{old}", &self.old.port.to_string())
            .replace("{expired}", &self.expired.port.to_string())
            .replace("{socket}", &self.tls.socket.display().to_string())
            .replace("{escaped}", &self.tls.socket.display().to_string().replace('/', "%2F"))
            .replace("{files}", &self.files.display().to_string())
    }
}

impl Address {
    fn serve(data: &Path, settings: &[&str]) -> Self {
        let socket = data.with_extension("sock");
        fs::create_dir(&socket).expect("a folder");
        give(&socket);
        let mut log = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            let listen = [&format!("port={port}"), "listen_addresses=127.0.0.1"];
            match Cluster::start(data, &socket, &[&listen, SMALL, settings].concat()) {
                Ok(server) => {
                    create_roles(&socket, port);
                    return Self { port, socket, _server: server };
                }
                // Another process may have taken the port in between.
                Err(said) => log = said,
            }
        }
        panic!("{log}");
    }
}

fn create_roles(socket: &Path, port: u16) {
    for statement in [ROLES, "create database saas"] {
        succeed(
            as_server("psql", socket)
                .args(["-XqU", "admin", "-d", "postgres", "-c", statement, "-h"])
                .arg(socket)
                .args(["-p", &port.to_string()]),
        );
    }
}

/// What a person has: variables and a home folder, nothing inherited.
pub(crate) struct Person {
    pub(crate) home: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Person {
    pub(crate) fn new(variables: &[(&str, &str)], servers: &Servers) -> Self {
        let filled = |(name, value): &(&str, &str)| ((*name).to_owned(), servers.fill(value));
        Self {
            home: tempfile::tempdir().expect("a folder"),
            variables: variables.iter().map(filled).collect(),
        }
    }

    /// Puts a file into the home folder with these permissions.
    pub(crate) fn keep(&self, path: &str, text: &str, mode: u32) {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().expect("inside home")).expect("a folder");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    }

    fn environment(&self) -> Environment {
        let user = fs::read_to_string("/etc/passwd").expect("readable");
        let id = rustix::process::geteuid().as_raw().to_string();
        let user = user
            .lines()
            .find(|line| line.split(':').nth(2) == Some(&id))
            .and_then(|line| line.split(':').next())
            .expect("listed");
        let home = self.home.path().display().to_string();
        let own = [("USER".to_owned(), user.to_owned()), ("HOME".to_owned(), home)];
        Environment::from_pairs(self.variables.iter().cloned().chain(own))
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(program("psql"));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .args(["-XAtw", "-c", WHERE_AM_I]);
        command
    }

    /// Asks psql where it ends up; `Err` is what it complains about.
    pub(crate) fn by_psql(&self, text: Option<&str>) -> Result<String, String> {
        answer(self.psql().args(text.map(|text| format!("--dbname={text}"))))
    }

    pub(crate) fn resolve(&self, text: Option<&str>) -> Result<ConnectOptions, String> {
        ConnectOptions::resolve(text, &self.environment()).map_err(|error| error.to_string())
    }

    /// Asks our driver where it ends up; `Err` is the error and its hint.
    pub(crate) fn by_driver(&self, text: Option<&str>) -> Result<String, String> {
        let options = self.resolve(text)?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(ask(&options))
    }

    /// Asks a psql that gets only the resolved connection.
    pub(crate) fn by_child(&self, text: Option<&str>) -> Result<String, String> {
        let options = self.resolve(text)?;
        let mut command = self.psql();
        options.apply_to(&mut command);
        answer(&mut command)
    }
}

async fn ask(options: &ConnectOptions) -> Result<String, String> {
    let connector = tls::connector(options)
        .map_err(|error| format!("{error}; hint: {}", error.hint().unwrap_or_default()))?;
    let mut failure = String::new();
    for attempt in options.attempts() {
        let limit = options.connect_timeout().unwrap_or(Duration::from_mins(1));
        let connected = tokio::time::timeout(limit, attempt.connect(connector.clone())).await;
        let (client, connection) = match connected.map_err(|_| "timeout")? {
            Ok(connected) => connected,
            Err(error) => {
                failure = format!("{error:?}; hint: {}", tls::explain(&error).unwrap_or_default());
                continue;
            }
        };
        let connection = tokio::spawn(connection);
        let rows = client.simple_query(WHERE_AM_I).await;
        drop(client);
        let finished = connection.await.expect("no panic");
        return match rows.and_then(|rows| finished.map(|()| rows)) {
            Ok(rows) => Ok(rows
                .iter()
                .find_map(|row| match row {
                    SimpleQueryMessage::Row(row) => row.try_get(0).ok()?.map(str::to_owned),
                    _ => None,
                })
                .expect("one row")),
            Err(error) => Err(format!("{error:?}")),
        };
    }
    Err(failure)
}

fn answer(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().expect("psql runs");
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&stderr).trim().to_owned())
    }
}

/// Writes an authority, a server's certificate for `localhost`, a client's for the role
/// `certified`, two like these that have expired, and a second authority that signed nothing.
fn certificates(folder: &Path) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    };
    let authority = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("signed").pem();
        (pem, Issuer::new(params, key))
    };
    let (ours, issuer) = authority("ours");
    write("ca.crt", ours);
    write("other-ca.crt", authority("theirs").0);
    for (file, name, hosts) in [
        ("server", "server", vec!["localhost".to_owned()]),
        ("client", "certified", Vec::new()),
        ("expired", "server", vec!["localhost".to_owned()]),
        ("expired-client", "certified", Vec::new()),
    ] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(hosts).expect("valid");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if file.starts_with("expired") {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        }
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        write(&format!("{file}.crt"), certificate.pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}

fn write_for_server(path: &Path, text: &str) {
    let mut file = fs::File::create(path).expect("created");
    file.write_all(text.as_bytes()).expect("written");
    give(path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
