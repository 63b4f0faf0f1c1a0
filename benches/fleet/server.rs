//! A private server that is deleted afterwards, however this process ends.
//!
//! Its parent is a shell that waits for the end of its standard input. That input is a pipe from
//! this process, so it ends even if this process is killed; then the shell stops the server and
//! deletes its folder.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Settings that differ from the defaults: no TCP, and a lock table that is large enough for
/// hundreds of schemas in one transaction.
const SETTINGS: [&str; 4] = [
    "listen_addresses=",
    "max_connections=100",
    "max_locks_per_transaction=1024",
    "cluster_name=pricesync_bench",
];

/// Stops the server and removes its folder when the other end of the pipe is closed.
const KEEPER: &str = r#"dir=$1; ram=$2; shift 2
"$@" < /dev/null > "$dir/log" 2>&1 &
server=$!
read -r _
# Again and again: a server that has just been started does not listen to its first one.
while kill -INT $server 2> /dev/null; do sleep 0.1; done
rm -rf "$dir" "$ram""#;

/// Linux's file system in memory.
const MEMORY: &str = "/dev/shm";

/// Space required there; a complete run uses about half of it.
const ROOM: u64 = 4 << 30;

/// A running server and its folder.
pub(crate) struct Server {
    dir: PathBuf,
    ram: Option<PathBuf>,
    bin: PathBuf,
    keeper: Child,
}

impl Server {
    /// Creates a cluster in a temporary folder and starts it.
    pub(crate) fn start() -> Result<Self> {
        let bin = programs()?;
        let name = format!("pricesync-bench-{}", std::process::id());
        let dir = env::temp_dir().join(&name);
        let ram = has_memory().then(|| Path::new(MEMORY).join(&name));
        let account = account()?;
        for dir in [Some(&dir), ram.as_ref()].into_iter().flatten() {
            fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            if let Some((uid, gid)) = account {
                chown(dir, Some(uid), Some(gid))?;
            }
        }
        let as_account = |command: &mut Command| {
            command.current_dir(&dir).env("LC_ALL", "C.UTF-8");
            if let Some((uid, gid)) = account {
                command.uid(uid).gid(gid);
            }
        };
        let data = dir.join("data");
        let mut initdb = process::command(bin.join("initdb"));
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        as_account(&mut initdb);
        let made = initdb.stderr(Stdio::piped()).output()?;
        if !made.status.success() {
            let _ = fs::remove_dir_all(&dir);
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        let mut keeper = process::command("/bin/sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir);
        keeper.arg(ram.as_deref().unwrap_or(Path::new("")));
        keeper.arg(bin.join("postgres")).arg("-D").arg(&data);
        for setting in SETTINGS {
            keeper.args(["-c", setting]);
        }
        keeper.arg("-c").arg(format!("unix_socket_directories={}", dir.display()));
        as_account(&mut keeper);
        // A process group of its own: Ctrl-C reaches only this process, and the pipe stops the server.
        let keeper = keeper.stdin(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()?;
        let server = Self { dir, ram, bin, keeper };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.is_ready() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                bail!("the server did not start:\n{log}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Returns the folder of the socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the folder in memory for databases that do not need the disk.
    pub(crate) fn ram(&self) -> Option<&Path> {
        self.ram.as_deref()
    }

    /// Returns the URL of a database, for libpq and others.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&user=postgres", self.dir.display())
    }

    /// Returns the version that the server's program prints.
    pub(crate) fn version(&self) -> Result<String> {
        let said = Command::new(self.bin.join("postgres")).arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        Ok(said.trim().replace("postgres (PostgreSQL)", "PostgreSQL"))
    }

    /// Returns the process id of the postmaster.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state()?.lines().next()?.parse().ok()
    }

    /// The last line of `postmaster.pid` is the server's state.
    fn is_ready(&self) -> bool {
        let state = self.state().unwrap_or_default();
        state.lines().last().is_some_and(|line| line.trim() == "ready")
    }

    fn state(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        // The shell may not be allowed to delete the folder from its parent.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = self.ram.as_ref().map(fs::remove_dir_all);
    }
}

fn has_memory() -> bool {
    rustix::fs::statvfs(MEMORY).is_ok_and(|stat| stat.f_bavail * stat.f_frsize >= ROOM)
}

/// Finds the server's programs in the same places as pricesync.
fn programs() -> Result<PathBuf> {
    let is_bin = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = env::var_os("PRICESYNC_PG_BIN").map(PathBuf::from) {
        return if is_bin(&dir) {
            Ok(dir)
        } else {
            bail!("PRICESYNC_PG_BIN holds no server: {}", dir.display())
        };
    }
    on_path()
        .into_iter()
        .chain(packaged())
        .find(is_bin)
        .context("no PostgreSQL server programs found; make needs installs them")
}

/// Finds a client program. The one of the package comes before the one on PATH, which on Debian is
/// a slow wrapper script.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    packaged()
        .into_iter()
        .chain(on_path())
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

fn on_path() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

/// Returns the folders of Debian's packages, newest version first.
fn packaged() -> Vec<PathBuf> {
    let major = |dir: &PathBuf| -> u32 {
        let version = dir.parent().and_then(Path::file_name).unwrap_or_default();
        version.to_string_lossy().parse().unwrap_or_default()
    };
    let mut dirs: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    dirs.sort_by_key(|dir| std::cmp::Reverse(major(dir)));
    dirs
}

/// Returns the user that the server runs as, if it is another one: the server refuses root.
fn account() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let listed = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else {
                return None;
            };
            (name == wanted).then_some((uid.parse().ok()?, gid.parse().ok()?))
        })
    };
    let account = listed("postgres").or_else(|| listed("nobody"));
    Ok(Some(account.context("this machine has neither the user postgres nor the user nobody")?))
}
