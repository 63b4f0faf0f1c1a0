//! The directory of a local server: its location, files and permissions.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::POLL_INTERVAL;
use super::account::Account;
use super::lock::FileLock;
use super::postmaster::Postmaster;
use super::{LocalError, LocalOptions, directory};

/// The longest path that a Unix socket may have, without the final NUL (`sun_path`).
const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// Below this directory root keeps the data of projects that the server's user cannot reach.
const SHARED_HOMES: &str = "/var/lib/pricesync";

/// Where sockets with a too long path go. Not `$TMPDIR`: every process must find the same place.
const SHORT_DIR: &str = "/tmp";

/// How long one process may hold the start lock: `initdb` on a busy machine takes seconds.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Files that `rm -r` on a running server may leave behind. Data is not among them: it may belong to
/// another server.
const HARMLESS: [&str; 5] = [".gitignore", "users", "supervisor", "serving", "server.log"];

/// The directory of one local server.
///
/// The directory and the locks belong to the user who runs pricesync; `data` and `run` belong to the
/// server's [`Account`]. So root never writes in a directory of another user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerDir {
    root: PathBuf,
    account: Account,
}

impl ServerDir {
    /// Finds the server's directory without creating anything.
    pub(super) fn locate(options: &LocalOptions) -> Result<Self, LocalError> {
        let asked = directory::resolve(&options.data_dir)?;
        directory::refuse_strangers(&asked)?;
        let here = Self::at(asked.clone())?;
        if !Account::differs_from_ours() || here.has_data() {
            return Ok(here);
        }
        let moved = Self::at(Path::new(SHARED_HOMES).join(directory::fingerprint(&asked)))?;
        if moved.has_data() || !here.account.can_enter(directory::nearest(&asked))? {
            return Ok(moved);
        }
        Ok(here)
    }

    /// Takes a directory as a server's, without looking for a better one.
    pub(super) fn at(root: PathBuf) -> Result<Self, LocalError> {
        let account = Account::for_data(&root.join("data"))?;
        Ok(Self { root, account })
    }

    /// Creates the directory and takes the start lock; waits while another process holds it.
    pub(super) fn create(&self) -> Result<FileLock, LocalError> {
        self.locked(|| self.make())
    }

    /// Takes the start lock of an existing directory.
    pub(super) fn lock(&self) -> Result<FileLock, LocalError> {
        self.locked(|| Ok(()))
    }

    fn locked(&self, prepare: impl Fn() -> Result<(), LocalError>) -> Result<FileLock, LocalError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // Again each time: a `destroy` that had the lock takes the directory away.
            prepare()?;
            if let Some(lock) = FileLock::try_exclusive(&self.start_lock())? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(LocalError::Busy(self.start_lock()));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn make(&self) -> Result<(), LocalError> {
        if self.root.exists() {
            return self.refuse_strangers_files();
        }
        let mode = if Account::differs_from_ours() { 0o711 } else { 0o700 };
        if let Some(parent) = self.root.parent() {
            directory::make_parents(parent)?;
        }
        directory::make(&self.root, mode)?;
        self.hide_from_git()
    }

    fn refuse_strangers_files(&self) -> Result<(), LocalError> {
        let is_harmless = fs::read_dir(&self.root)
            .map_err(LocalError::file("read", &self.root))?
            .flatten()
            .all(|entry| HARMLESS.iter().any(|name| entry.file_name() == *name));
        if is_harmless || self.start_lock().exists() {
            Ok(())
        } else {
            Err(LocalError::NotEmpty(self.root.clone()))
        }
    }

    /// Writes a `.gitignore` into `.pricesync`, or into our own directory when its parent has
    /// another name and may hold files that git shall see.
    fn hide_from_git(&self) -> Result<(), LocalError> {
        let parent = self.root.parent().filter(|dir| dir.ends_with(".pricesync"));
        let path = parent.unwrap_or(&self.root).join(".gitignore");
        if path.exists() {
            return Ok(());
        }
        fs::write(&path, "*\n").map_err(LocalError::file("write", &path))
    }

    /// Returns the directory that the sockets are in, which depends on the length of the path.
    pub(super) fn socket_dir(&self, port: u16) -> PathBuf {
        let near = self.root.join("run");
        if socket_in(&near, port).as_os_str().len() <= SOCKET_PATH_BYTES {
            near
        } else {
            self.short_socket_dir()
        }
    }

    /// Returns the path of the socket.
    pub(super) fn socket(&self, port: u16) -> PathBuf {
        socket_in(&self.socket_dir(port), port)
    }

    fn short_socket_dir(&self) -> PathBuf {
        let name =
            format!("pricesync-{}-{}", self.account.uid(), directory::fingerprint(&self.root));
        Path::new(SHORT_DIR).join(name)
    }

    /// Creates the directory for the sockets, or checks that an existing one is private: any user can
    /// create a directory of that name in `/tmp`.
    pub(super) fn make_socket_dir(&self, port: u16) -> Result<PathBuf, LocalError> {
        let dir = self.socket_dir(port);
        if let Ok(meta) = fs::symlink_metadata(&dir) {
            let is_private = meta.is_dir() && meta.mode() & 0o777 == 0o700;
            if !is_private || meta.uid() != self.account.uid() {
                return Err(LocalError::NotOurs { path: dir, owner: meta.uid() });
            }
            return Ok(dir);
        }
        directory::make(&dir, 0o700)?;
        self.account.own(&dir)?;
        Ok(dir)
    }

    /// Removes what a stopped server leaves outside its own directory.
    pub(super) fn sweep_short_socket_dir(&self) {
        // Only an empty directory goes; one that is still used, or absent, is as good.
        let _ = fs::remove_dir(self.short_socket_dir());
    }

    /// Deletes the directory. Renames it first, so that no process finds a partly deleted one.
    pub(super) fn destroy(&self) -> Result<(), LocalError> {
        self.sweep_short_socket_dir();
        let gone = self.gone();
        directory::remove(&gone)?;
        fs::rename(&self.root, &gone).map_err(LocalError::file("rename", &self.root))?;
        directory::remove(&gone)
    }

    fn gone(&self) -> PathBuf {
        let mut name = self.root.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".gone");
        self.root.with_file_name(name)
    }

    /// Returns whether the directory has ever been a server's.
    pub(super) fn exists(&self) -> bool {
        self.start_lock().exists()
    }

    /// Returns whether there is a complete database cluster.
    pub(super) fn has_data(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    /// Returns the user that the data belongs to.
    pub(super) fn account(&self) -> Account {
        self.account
    }

    /// Returns the running server's description.
    pub(super) fn postmaster(&self) -> Option<Postmaster> {
        let data = self.data();
        Postmaster::read(&data).filter(|found| found.lives_in(&data))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn unfinished_data(&self) -> PathBuf {
        self.root.join("data.new")
    }

    pub(super) fn start_lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    pub(super) fn supervisor(&self) -> PathBuf {
        self.root.join("supervisor")
    }

    pub(super) fn serving(&self) -> PathBuf {
        self.root.join("serving")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("server.log")
    }
}

fn socket_in(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

#[cfg(test)]
mod tests {
    use super::ServerDir;
    use std::path::PathBuf;

    fn home_of_length(bytes: usize) -> ServerDir {
        ServerDir::at(PathBuf::from(format!("/{}", "d".repeat(bytes - 1)))).unwrap()
    }

    #[test]
    fn the_socket_directory_is_beside_the_data_up_to_93_bytes() {
        let fits = home_of_length(93 - "/run".len());
        assert_eq!(fits.socket_dir(5432), fits.root().join("run"));
        let too_long = home_of_length(94 - "/run".len());
        assert!(too_long.socket_dir(5432).starts_with("/tmp"));
        assert!(fits.socket_dir(54321).starts_with("/tmp"));
    }

    #[test]
    fn a_directory_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = ServerDir::at(dir.path().to_owned()).unwrap().create();
        assert!(error.unwrap_err().to_string().contains("are not a local server's"));
    }

    #[test]
    fn git_is_told_to_ignore_dot_pricesync_but_no_other_parent() {
        let dir = tempfile::tempdir().unwrap();
        let usual = ServerDir::at(dir.path().join(".pricesync/postgres")).unwrap();
        drop(usual.create().unwrap());
        assert!(dir.path().join(".pricesync/.gitignore").exists());
        let other = ServerDir::at(dir.path().join("var/postgres")).unwrap();
        drop(other.create().unwrap());
        assert!(!dir.path().join("var/.gitignore").exists());
        assert!(other.root().join(".gitignore").exists());
    }
}
