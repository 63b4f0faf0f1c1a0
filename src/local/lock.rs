//! File locks, which the kernel releases when the last process that holds them ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use super::LocalError;

/// A held `flock`.
///
/// Released when this value is dropped and every child that got [`FileLock::inherited`] has ended.
#[must_use]
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    /// Takes the lock exclusively, or returns `None` when another process holds it.
    ///
    /// Returns `None` also when the file was deleted or replaced, as `destroy` does: a caller that
    /// waits retries.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, LocalError> {
        Self::attempt(path, true)
    }

    /// The same, but never creates the file: another process may be deleting the directory.
    pub(super) fn try_existing(path: &Path) -> Result<Option<Self>, LocalError> {
        Self::attempt(path, false)
    }

    fn attempt(path: &Path, create: bool) -> Result<Option<Self>, LocalError> {
        let file = match open(path, create) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LocalError::file("open", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(is_still_at(&file, path).then_some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(LocalError::file("lock", path)(error)),
        }
    }

    /// Returns whether no process holds the lock.
    pub(super) fn is_free(path: &Path) -> Result<bool, LocalError> {
        Ok(!path.exists() || Self::try_existing(path)?.is_some())
    }

    /// Takes the lock shared, and sets the file's modification time.
    pub(super) fn shared(path: &Path) -> Result<Self, LocalError> {
        let file = open(path, true).map_err(LocalError::file("open", path))?;
        file.lock_shared().map_err(LocalError::file("lock", path))?;
        file.set_modified(SystemTime::now()).map_err(LocalError::file("touch", path))?;
        Ok(Self(file))
    }

    /// Returns the lock as a child's standard input, so that the child and its children hold it too.
    pub(super) fn inherited(&self) -> io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(super::directory::NO_SYMLINK)
        .open(path)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::FileLock;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// A test beside this one may be forking, and its child holds everything for an instant.
    fn wait_until_free(path: &Path) {
        let deadline = Instant::now() + Duration::from_mins(5);
        while !FileLock::is_free(path).unwrap() {
            assert!(Instant::now() < deadline, "still locked");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_exclusive_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::try_exclusive(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(first);
        wait_until_free(&path);
    }

    #[test]
    fn a_child_that_inherits_it_holds_it_until_it_dies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        let mut child =
            Command::new("sleep").arg("60").stdin(lock.inherited().unwrap()).spawn().unwrap();
        drop(lock);
        assert!(!FileLock::is_free(&path).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until_free(&path);
    }

    #[test]
    fn a_replaced_file_is_not_mistaken_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let old = FileLock::try_exclusive(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
        drop(old);
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(FileLock::try_exclusive(&path).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
