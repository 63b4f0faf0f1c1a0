//! The programs of a PostgreSQL server that a test starts itself, and the account they run as.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the command that runs a program such as `initdb` as the server's user, in a folder.
pub(crate) fn as_server(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(folder);
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

/// Makes a folder or file belong to the server's user.
pub(crate) fn give(path: &Path) {
    if let Some((user, group)) = account() {
        chown(path, Some(user), Some(group)).expect("root may");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its owner may");
}

/// The server refuses to run as root, so root's tests run it as `postgres`.
fn account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("anyone may read it");
    let line = passwd
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("a user 'postgres' to run the server as");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    Some((ids.next().expect("a user"), ids.next().expect("a group")))
}

/// Returns the path of a program: in the folder that `PRICESYNC_PG_BIN` names, which must hold those of the server,
/// else in the newest package, else on the PATH.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("PRICESYNC_PG_BIN") {
        let program = PathBuf::from(folder).join(name);
        if program.exists() {
            return program;
        }
        let is_server = ["initdb", "pg_ctl"].contains(&name);
        assert!(!is_server, "PRICESYNC_PG_BIN lacks {name}: {}", program.display());
    }
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    let version = |folder: &PathBuf| {
        folder.parent().and_then(|it| it.file_name()?.to_str()?.parse::<u32>().ok())
    };
    folders.sort_by_key(version);
    let packaged = folders.pop().map(|folder| folder.join(name));
    packaged.filter(|program| program.exists()).unwrap_or_else(|| name.into())
}
