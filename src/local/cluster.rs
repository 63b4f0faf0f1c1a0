//! The database cluster: `initdb`, and the command line of the server.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;

use super::binaries::Binaries;
use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::postmaster;
use super::{LocalError, USER, directory};

/// How every local server runs. The data is disposable, so nothing waits for the disk and a crash
/// of the machine may damage it; one transaction may drop a schema with thousands of tables.
///
/// `synchronous_commit` stays on. It costs 0.4 ms per commit here; without it, a server that was
/// killed has lost transactions that it reported as committed.
const SETTINGS: [&str; 9] = [
    "fsync=off",
    "full_page_writes=off",
    "max_connections=100",
    "max_locks_per_transaction=1024",
    "max_wal_size=1GB",
    "unix_socket_permissions=0700",
    "logging_collector=off",
    "log_line_prefix=%m [%p] ",
    "cluster_name=pricesync",
];

/// The variables that a server may see: no password, no PG*, no locale of a terminal.
pub(super) fn clear_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
}

/// Returns the major version that the data needs, or `None` without data.
pub(super) fn major(home: &ServerDir) -> Option<u32> {
    let text = fs::read_to_string(home.data().join("PG_VERSION")).ok()?;
    text.trim().split('.').next()?.parse().ok()
}

/// Makes the cluster with `initdb`, which takes about a second.
///
/// It is made aside and renamed, so a killed `initdb` leaves nothing that looks like data. The
/// program inherits the start lock: while it outlives this process, no other one starts over.
pub(super) fn create(
    home: &ServerDir,
    binaries: &Binaries,
    starting: &FileLock,
) -> Result<(), LocalError> {
    let builtin: &[&str] = &["--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
    let libc: &[&str] = &["--locale=C.UTF-8"];
    let preferred = if binaries.major >= 17 { builtin } else { libc };
    // macOS has no C.UTF-8 before version 14, and musl knows no locales at all.
    initdb(home, binaries, starting, preferred)
        .or_else(|_| initdb(home, binaries, starting, &["--locale=C"]))?;
    fs::rename(home.unfinished_data(), home.data())
        .map_err(LocalError::file("rename", &home.unfinished_data()))
}

fn initdb(
    home: &ServerDir,
    binaries: &Binaries,
    starting: &FileLock,
    locale: &[&str],
) -> Result<(), LocalError> {
    let dir = home.unfinished_data();
    directory::remove(&dir)?;
    directory::make(&dir, 0o700)?;
    home.account().own(&dir)?;
    let program = binaries.dir.join("initdb");
    let mut command = Command::new(&program);
    command
        .arg("-D")
        .arg(&dir)
        .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"])
        .arg("--wal-segsize=4")
        .args(locale)
        .current_dir(&dir);
    clear_environment(&mut command);
    home.account().apply(&mut command);
    let output = starting
        .inherited()
        .and_then(|lock| command.stdin(lock).output())
        .map_err(|source| home.account().cannot_run(&program, source))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(LocalError::Initdb(String::from_utf8_lossy(&text).into_owned()))
}

/// Returns the command that serves the data, without its streams.
pub(super) fn serve(home: &ServerDir, binaries: &Binaries, port: Option<u16>) -> Command {
    let data = home.data();
    let number = port.unwrap_or(super::DEFAULT_PORT);
    let listen = if port.is_some() { "127.0.0.1" } else { "" };
    let mut command = Command::new(binaries.dir.join("postgres"));
    command.arg("-D").arg(&data).current_dir(&data);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
        .args(["-c", &format!("port={number}")])
        .args(["-c", &format!("listen_addresses={listen}")])
        .arg("-c")
        .arg(socket_setting(&home.socket_dir(number)));
    clear_environment(&mut command);
    home.account().apply(&mut command);
    command
}

/// Quotes the directory, because the setting is a list separated by commas.
fn socket_setting(dir: &Path) -> OsString {
    let mut setting = OsString::from("unix_socket_directories=\"");
    for (n, part) in split_quotes(dir.as_os_str()).enumerate() {
        if n > 0 {
            setting.push("\"\"");
        }
        setting.push(part);
    }
    setting.push("\"");
    setting
}

fn split_quotes(text: &OsStr) -> impl Iterator<Item = &OsStr> {
    use std::os::unix::ffi::OsStrExt;
    text.as_bytes().split(|byte| *byte == b'"').map(OsStr::from_bytes)
}

/// Removes the files with which a dead server would keep a new one from starting.
///
/// `PostgreSQL` only looks whether the process number in them exists, so a zombie, or any later
/// process of the same user, blocks the start. Call this only while `serving` is free: then no
/// process of our server is left. A server that another program started on this data is an error.
pub(super) fn clear_stale_files(home: &ServerDir, port: u16) -> Result<(), LocalError> {
    if let Some(other) = home.postmaster() {
        return Err(LocalError::Foreign { pid: other.pid(), data: home.data() });
    }
    let socket = home.socket(port);
    let mut socket_lock = socket.clone().into_os_string();
    socket_lock.push(".lock");
    for file in [postmaster::file(&home.data()), socket_lock.into(), socket] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LocalError::file("delete", &file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::socket_setting;
    use std::path::Path;

    #[test]
    fn commas_and_quotes_in_a_path_do_not_make_a_list() {
        assert_eq!(
            socket_setting(Path::new("/a, b/\"c\"/run")),
            "unix_socket_directories=\"/a, b/\"\"c\"\"/run\""
        );
    }
}
