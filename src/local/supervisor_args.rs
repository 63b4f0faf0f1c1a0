//! The supervisor's command line.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::{LocalError, LocalOptions, cluster, log};

/// The hidden subcommand whose body is [`supervise`](super::supervise).
pub const SUPERVISE: &str = "__supervise";

/// The arguments of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SupervisorArgs {
    /// The server's directory.
    pub(super) home: PathBuf,
    /// The directory of the server programs; `None` for a server that runs already.
    pub(super) binaries: Option<PathBuf>,
    /// How long the server keeps running without users.
    pub(super) idle: Duration,
    /// The TCP port to open, if any.
    pub(super) port: Option<u16>,
}

impl SupervisorArgs {
    /// Returns the arguments to start the server and supervise it.
    pub(super) fn serve(home: &ServerDir, options: &LocalOptions, binaries: PathBuf) -> Self {
        Self { binaries: Some(binaries), ..Self::watch(home, options) }
    }

    /// Returns the arguments to supervise a server that has lost its supervisor.
    pub(super) fn watch(home: &ServerDir, options: &LocalOptions) -> Self {
        Self {
            home: home.root().to_owned(),
            binaries: None,
            idle: options.idle,
            port: options.port,
        }
    }

    /// Starts a supervisor, which inherits its lock.
    pub(super) fn spawn(
        &self,
        home: &ServerDir,
        options: &LocalOptions,
        watching: &FileLock,
    ) -> Result<(), LocalError> {
        let program = match &options.supervisor {
            Some(program) => program.clone(),
            None => env::current_exe()
                .map_err(LocalError::file("find", Path::new("pricesync itself")))?,
        };
        let mut command = Command::new(&program);
        command
            .arg(SUPERVISE)
            .args(self.to_args())
            .current_dir(home.root())
            .stdout(log::open(&home.log())?)
            .stderr(log::open(&home.log())?);
        cluster::clear_environment(&mut command);
        let mut child = watching
            .inherited()
            .and_then(|lock| command.stdin(lock).spawn())
            .map_err(LocalError::file("run", &program))?;
        // Without a wait it would stay a zombie when it ends before this process.
        thread::spawn(move || child.wait());
        Ok(())
    }

    fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![
            OsString::from("--home"),
            self.home.clone().into(),
            OsString::from("--idle-ms"),
            self.idle.as_millis().to_string().into(),
        ];
        if let Some(binaries) = &self.binaries {
            args.extend([OsString::from("--bin"), binaries.clone().into()]);
        }
        if let Some(port) = self.port {
            args.extend([OsString::from("--port"), port.to_string().into()]);
        }
        args
    }

    /// Parses arguments that `spawn` passed.
    pub(super) fn parse(args: &[OsString]) -> Result<Self, LocalError> {
        let wrong = |why: &str| LocalError::InvalidArgs(why.to_owned());
        let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
        let (mut home, mut binaries, mut idle, mut port) = (None, None, None, None);
        for pair in args.chunks(2) {
            let [name, value] = pair else {
                return Err(wrong("an option has no value"));
            };
            match name.to_str() {
                Some("--home") => home = Some(PathBuf::from(value)),
                Some("--bin") => binaries = Some(PathBuf::from(value)),
                Some("--idle-ms") => idle = number(value).map(Duration::from_millis),
                Some("--port") => port = number(value).and_then(|port| u16::try_from(port).ok()),
                _ => return Err(wrong("an option is unknown")),
            }
        }
        Ok(Self {
            home: home.ok_or_else(|| wrong("--home is missing"))?,
            binaries,
            idle: idle.ok_or_else(|| wrong("--idle-ms is missing"))?,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{LocalError, SupervisorArgs};
    use std::ffi::OsString;
    use std::time::Duration;

    #[test]
    fn orders_survive_the_command_line() {
        let orders = SupervisorArgs {
            home: "/a b/ộ".into(),
            binaries: Some("/usr/lib/postgresql/15/bin".into()),
            idle: Duration::from_millis(2500),
            port: Some(6000),
        };
        assert_eq!(SupervisorArgs::parse(&orders.to_args()).unwrap(), orders);
    }

    #[test]
    fn a_command_line_that_pricesync_did_not_write_is_refused() {
        for args in [&["--home"][..], &["--home", "/p"], &["--what", "x"], &[]] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let error = SupervisorArgs::parse(&args).unwrap_err();
            assert!(matches!(error, LocalError::InvalidArgs(_)), "{error}");
        }
    }
}
