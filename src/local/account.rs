//! The user that the server runs as.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::LocalError;

/// The users that root hands the server to, best first (the second is macOS's).
const FALLBACKS: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The user that owns the data and runs the server.
///
/// It is the user who runs pricesync, except for root: `PostgreSQL` refuses to run as root, so
/// root hands over to the owner of the existing data, or else to `postgres` or `nobody`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Returns the user for the server whose data is, or will be, in this directory.
    pub(super) fn for_data(data: &Path) -> Result<Self, LocalError> {
        if !geteuid().is_root() {
            return Ok(Self { uid: geteuid().as_raw(), gid: getegid().as_raw() });
        }
        match fs::symlink_metadata(data) {
            Ok(meta) if meta.uid() != 0 => Ok(Self { uid: meta.uid(), gid: meta.gid() }),
            _ => fs::read_to_string("/etc/passwd")
                .ok()
                .and_then(|passwd| Self::listed(&passwd))
                .ok_or(LocalError::NoAccount),
        }
    }

    fn listed(passwd: &str) -> Option<Self> {
        FALLBACKS.iter().find_map(|wanted| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                (name == *wanted && uid != 0).then_some(Self { uid, gid })
            })
        })
    }

    /// Returns the user id.
    pub(super) fn uid(self) -> u32 {
        self.uid
    }

    /// Returns whether pricesync runs as root, so that the server runs as another user.
    pub(super) fn differs_from_ours() -> bool {
        geteuid().is_root()
    }

    /// Makes the command run as this user.
    pub(super) fn apply(self, command: &mut Command) {
        if Self::differs_from_ours() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives this user a directory that we have just made.
    pub(super) fn own(self, path: &Path) -> Result<(), LocalError> {
        if Self::differs_from_ours() {
            lchown(path, Some(self.uid), Some(self.gid))
                .map_err(LocalError::file("change the owner of", path))?;
        }
        Ok(())
    }

    /// Returns whether this user can enter an existing directory, by letting it try: permission
    /// bits alone do not know about access lists and mounts.
    pub(super) fn can_enter(self, dir: &Path) -> Result<bool, LocalError> {
        let shell = Path::new("/bin/sh");
        let mut command = Command::new(shell);
        command
            .args(["-c", ":"])
            .current_dir(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.apply(&mut command);
        match command.status() {
            Ok(_) => Ok(true),
            // EACCES is the directory's answer; EPERM would be "you may not become that user".
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ACCESS) => Ok(false),
            Err(source) => Err(self.cannot_run(shell, source)),
        }
    }

    /// Returns the error for a program that did not run as this user.
    pub(super) fn cannot_run(self, program: &Path, source: io::Error) -> LocalError {
        LocalError::Program { program: program.to_owned(), uid: self.uid, source }
    }
}

#[cfg(test)]
mod tests {
    use super::Account;

    #[test]
    fn postgres_is_preferred_to_nobody_and_root_is_never_taken() {
        let both = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n\
                    postgres:x:101:104::/var/lib/postgresql:/bin/sh\n";
        assert_eq!(Account::listed(both), Some(Account { uid: 101, gid: 104 }));
        let entry = "nobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(Account::listed(entry), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(Account::listed("postgres:x:0:0::/:/bin/sh\nbroken\n"), None);
    }
}
