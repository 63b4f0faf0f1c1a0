//! The program on a terminal of its own.

use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::eventually::PATIENCE;
use super::pricesync::Given;

/// The program with a terminal as all three streams.
pub(crate) struct OnTerminal {
    child: Box<dyn Child + Send + Sync>,
    /// Closing it would hang up.
    _master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl OnTerminal {
    /// Starts the program on a terminal of 24 rows and 100 columns.
    pub(crate) fn start(given: &Given, args: &[&str]) -> Self {
        let size = PtySize { rows: 24, cols: 100, ..PtySize::default() };
        let pair = native_pty_system().openpty(size).unwrap();
        let like = given.command(args);
        let mut command = CommandBuilder::new(like.get_program());
        command.args(like.get_args());
        command.cwd(given.dir.path());
        command.env_clear();
        for (name, value) in like.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            writer: pair.master.take_writer().unwrap(),
            _master: pair.master,
            output,
            screen: vt100::Parser::new(extent(24), extent(100), 1000),
        }
    }

    /// Waits until the screen fulfils a condition; panics with the screen if it never does.
    pub(crate) fn shows(&mut self, what: &str, mut holds: impl FnMut(&str) -> bool) {
        // Bars are drawn again and again, so that the output never pauses.
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.screen.screen().contents()) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("{what}: {}", self.contents()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{what}, before the end: {}", self.contents())
                }
            }
        }
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.writer.write_all(line.as_bytes()).unwrap();
        self.writer.write_all(b"\r").unwrap();
    }

    /// Waits for the end and returns the exit code and what the screen shows then.
    pub(crate) fn ends(mut self) -> (u32, String) {
        let code = self.child.wait().unwrap().exit_code();
        while let Ok(bytes) = self.output.recv_timeout(PATIENCE) {
            self.screen.process(&bytes);
        }
        (code, self.contents())
    }

    fn contents(&self) -> String {
        self.screen.screen().contents()
    }
}

fn extent(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}
