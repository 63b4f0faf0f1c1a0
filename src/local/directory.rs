//! Making, finding and deleting directories that other users may see.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::LocalError;
use super::POLL_INTERVAL;

/// Flag for `open` that refuses a symbolic link: root may open files in a user's directory.
pub(super) const NO_SYMLINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Deletes a directory, which may be missing or still get its last files from a dying process.
pub(super) fn remove(dir: &Path) -> Result<(), LocalError> {
    for attempt in 1.. {
        match fs::remove_dir_all(dir) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < 100 => {
                thread::sleep(POLL_INTERVAL);
            }
            Err(error) => return Err(LocalError::file("delete", dir)(error)),
        }
    }
    Ok(())
}

/// Creates a directory with exactly this mode; the umask could make it unreachable.
///
/// It appears with its mode: made aside and renamed. A directory that is closed for one instant
/// looks to another process like one that the server's user cannot enter, and that process
/// would start a second server elsewhere. And it replaces nothing: an empty directory that another
/// process has just made would be gone from under what that process is putting into it.
pub(super) fn make(dir: &Path, mode: u32) -> Result<(), LocalError> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let aside = tempfile::Builder::new()
        .prefix(".pricesync-")
        .tempdir_in(parent)
        .map_err(LocalError::file("create", dir))?;
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(mode))
        .map_err(LocalError::file("set the mode of", dir))?;
    let renamed = match renameat_with(CWD, aside.path(), CWD, dir, RenameFlags::NOREPLACE) {
        // The file system does not know how to.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(aside.path(), dir),
        renamed => renamed.map_err(io::Error::from),
    };
    match renamed {
        Ok(()) => {
            let _ = aside.keep();
            Ok(())
        }
        // Another process is at the same point of its start, and already further.
        Err(_) if dir.is_dir() => Ok(()),
        Err(error) => Err(LocalError::file("create", dir)(error)),
    }
}

/// Refuses a directory of another user, unless root asks.
pub(super) fn refuse_strangers(dir: &Path) -> Result<(), LocalError> {
    match fs::metadata(dir) {
        Ok(meta) if meta.uid() != geteuid().as_raw() && !geteuid().is_root() => {
            Err(LocalError::NotOurs { path: dir.to_owned(), owner: meta.uid() })
        }
        _ => Ok(()),
    }
}

/// Creates the missing directories of a path.
pub(super) fn make_parents(dir: &Path) -> Result<(), LocalError> {
    if dir.exists() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_parents(parent)?;
    }
    make(dir, 0o755)
}

/// Makes the path absolute and free of symbolic links, as far as it exists.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, LocalError> {
    let absolute = std::path::absolute(path).map_err(LocalError::file("find", path))?;
    let known = nearest(&absolute);
    let real = fs::canonicalize(known).map_err(LocalError::file("find", known))?;
    let rest = absolute.strip_prefix(known).unwrap_or(Path::new(""));
    Ok(real.components().chain(rest.components()).collect())
}

/// Returns the nearest ancestor that exists, or the path itself.
pub(super) fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}

/// Returns 16 hexadecimal digits that stand for a path (FNV-1a; every version of pricesync must
/// compute the same, so it is not the standard library's hasher).
pub(super) fn fingerprint(path: &Path) -> String {
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::{fingerprint, make, resolve};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    #[test]
    fn fingerprints_do_not_change_between_releases() {
        assert_eq!(fingerprint(Path::new("/srv/app")), "148a99b954e2c46f");
    }

    #[test]
    fn an_empty_directory_of_another_process_is_left_where_it_is() {
        let parent = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let dir = parent.path().join(round.to_string());
            std::thread::scope(|scope| {
                let makers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            make(&dir, 0o755).unwrap();
                            std::fs::metadata(&dir).unwrap().ino()
                        })
                    })
                    .collect();
                let found: Vec<_> = makers.into_iter().map(|it| it.join().unwrap()).collect();
                assert!(found.iter().all(|inode| *inode == found[0]), "{found:?}");
            });
        }
    }

    #[test]
    fn a_directory_is_never_seen_with_another_mode() {
        let parent = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let dir = parent.path().join(round.to_string());
            std::thread::scope(|scope| {
                let seen = scope.spawn(|| {
                    loop {
                        if let Ok(meta) = std::fs::metadata(&dir) {
                            return meta.mode() & 0o777;
                        }
                    }
                });
                make(&dir, 0o711).unwrap();
                assert_eq!(seen.join().unwrap(), 0o711);
            });
        }
    }

    #[test]
    fn two_spellings_of_a_directory_are_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let rest = ".pricesync/postgres";
        assert_eq!(resolve(&link.join(rest)).unwrap(), resolve(&real.join(rest)).unwrap());
    }
}
