//! Where text goes, decided once: which streams are terminals, how wide, in colour or not.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::domain::hint::Hint;
use crate::domain::schema_state::SchemaState;

use super::confirm::{self, Answer};
use super::error::explanation::{Detail, Explanation, Layout};
use super::reporter::bars::BarsReporter;
use super::reporter::json::JsonReporter;
use super::reporter::log::LogReporter;
use super::reporter::log_format::{LogFormatter, LogLevel};
use super::reporter::{ProgressMode, Reporter, Verbosity};
use super::style::{ColorChoice, Style};
use super::text::{clean, clean_lines};

/// What is known about one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Whether a person looks at it.
    pub is_terminal: bool,
    /// How many columns it has, where it has any.
    pub width: Option<u16>,
    /// Whether and how it is painted.
    pub style: Style,
}

/// The streams of this process and how they are to be used.
#[derive(Clone, Debug, Default)]
pub struct Terminal {
    stdout: Stream,
    stderr: Stream,
    /// Whether somebody sits at stdin.
    answers: bool,
    /// Whether lines can be drawn over: not on a dumb terminal, and not where a log is kept.
    animates: bool,
    verbosity: Verbosity,
    /// The program in proposed commands, with the options that select the database and the files.
    program: String,
}

/// Excerpts are cut to this width where nobody's terminal says how wide it is.
const PAGE: usize = 120;

impl Terminal {
    /// Looks at the streams and at `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM` and `CI`.
    #[must_use]
    pub fn detect(color: ColorChoice, verbosity: Verbosity) -> Self {
        let stream = |is_terminal, width| Stream {
            is_terminal,
            width,
            style: Style::plain(),
        };
        Self {
            stdout: stream(io::stdout().is_terminal(), window(&io::stdout())),
            stderr: stream(io::stderr().is_terminal(), window(&io::stderr())),
            answers: io::stdin().is_terminal(),
            ..Self::default()
        }
        .with(|name| std::env::var_os(name), color, verbosity)
    }

    /// Decides about colour and movement from the environment and the options.
    fn with(
        mut self,
        env: impl Fn(&str) -> Option<OsString>,
        color: ColorChoice,
        verbosity: Verbosity,
    ) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let on = |name: &str| set(name).is_some_and(|value| value != "0" && value != "false");
        let dumb = env("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        let coloured = |stream: Stream| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR").is_some() => false,
            ColorChoice::Auto if on("CLICOLOR_FORCE") => true,
            ColorChoice::Auto => {
                stream.is_terminal && !dumb && set("CLICOLOR").is_none_or(|value| value != "0")
            }
        };
        self.stdout.style = Style::new(coloured(self.stdout));
        self.stderr.style = Style::new(coloured(self.stderr));
        self.animates = self.stderr.is_terminal && !dumb && !on("CI");
        self.verbosity = verbosity;
        self
    }

    /// Sets the program in proposed commands, such as `pricesync --local`.
    #[must_use]
    pub fn proposing(mut self, program: Option<String>) -> Self {
        self.program = program.unwrap_or_else(|| "pricesync".to_owned());
        self
    }

    /// Returns a hint as text, with a command that acts on the same database and files.
    #[must_use]
    pub fn render(&self, hint: &Hint) -> String {
        hint.render(&self.program)
    }

    /// Returns what is wrong with a schema, each problem as text; see [`SchemaState::problems`].
    #[must_use]
    pub fn problems(&self, state: &SchemaState, selection: &str) -> Vec<String> {
        let problems = state.problems(selection);
        problems
            .iter()
            .map(|problem| self.render(problem))
            .collect()
    }

    /// Returns what is known about stdout.
    #[must_use]
    pub const fn stdout(&self) -> Stream {
        self.stdout
    }

    /// Returns what is known about stderr.
    #[must_use]
    pub const fn stderr(&self) -> Stream {
        self.stderr
    }

    /// Returns how much is told.
    #[must_use]
    pub const fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Returns a buffered writer to stdout, for results. Flush it: an error on the way
    /// out of a dropped buffer is lost.
    #[must_use]
    pub fn out(&self) -> BufWriter<StdoutLock<'static>> {
        BufWriter::with_capacity(32 * 1024, io::stdout().lock())
    }

    /// Says something on stderr, unless `--quiet`. May have several lines.
    pub fn note(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            say(&format!("{}\n", clean_lines(text)));
        }
    }

    /// Proposes on stderr what to do next, unless `--quiet`.
    pub fn hint(&self, hint: &Hint) {
        self.note(&self.render(hint));
    }

    /// Warns on stderr, unless `--quiet`.
    pub fn warn(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            let label = self.stderr.style.warning("warning:");
            say(&format!("{label} {}\n", clean_lines(text)));
        }
    }

    /// Says on stderr what failed. For causes and hints see [`Terminal::explain`].
    pub fn error(&self, text: &str) {
        let label = self.stderr.style.bad("error:");
        say(&format!("{label} {}\n", clean_lines(text)));
    }

    /// Says on stderr what failed, why, and what to do next.
    pub fn explain(&self, subject: Option<&str>, explanation: &Explanation) {
        say(&explanation.render(subject, Detail::Full, self.layout()));
    }

    /// Returns the reporter for a run.
    ///
    /// `Auto` is bars where stderr is a terminal that can move its cursor and `CI` is not set,
    /// else lines. Bars that were asked for where there is no such terminal are lines.
    /// `--quiet` makes everything but JSON a list of failures.
    #[must_use]
    pub fn reporter(&self, mode: ProgressMode) -> Box<dyn Reporter + Send> {
        let telling = match (self.verbosity, mode) {
            (Verbosity::Quiet, _) => LogLevel::Failures,
            (_, ProgressMode::None) => LogLevel::Warnings,
            (Verbosity::Normal, ProgressMode::Lines) => LogLevel::Steps,
            (Verbosity::Normal, _) => LogLevel::Progress,
            (Verbosity::Verbose | Verbosity::VeryVerbose, _) => LogLevel::All,
        };
        let style = self.stderr.style;
        match self.settle(mode) {
            ProgressMode::Json => Box::new(JsonReporter::new(io::stderr())),
            ProgressMode::Bars => Box::new(BarsReporter::on_stderr(
                telling,
                style,
                &self.program,
                || window(&io::stderr()).map_or(80, usize::from),
            )),
            _ => {
                let format = LogFormatter::new(telling, style, self.page(), &self.program);
                Box::new(LogReporter::new(io::stderr(), format))
            }
        }
    }

    /// Asks on stderr for `expected` to be typed; needs a terminal on both ends.
    pub fn confirm(&self, question: &str, expected: &str) -> io::Result<Answer> {
        if !self.answers || !self.stderr.is_terminal {
            return Ok(Answer::NotATerminal);
        }
        confirm::ask(
            question,
            expected,
            &mut io::stderr(),
            &mut io::stdin().lock(),
        )
    }

    /// Asks on the terminal for something that is not shown while it is typed; `None` where
    /// nobody can be asked.
    pub fn secret(&self, question: &str) -> io::Result<Option<String>> {
        if !self.answers || !self.stderr.is_terminal {
            return Ok(None);
        }
        // Before the question: whoever answers at once must not be shown either.
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        say(&clean(question));
        let answer = rpassword::read_password();
        tcsetattr(io::stdin(), OptionalActions::Now, &before)?;
        answer.map(Some)
    }

    fn settle(&self, mode: ProgressMode) -> ProgressMode {
        match mode {
            ProgressMode::Json => ProgressMode::Json,
            ProgressMode::None => ProgressMode::None,
            _ if self.verbosity == Verbosity::Quiet => ProgressMode::Lines,
            ProgressMode::Auto if self.animates => ProgressMode::Bars,
            // indicatif draws nothing at all where stderr is no terminal.
            ProgressMode::Bars if self.stderr.is_terminal => ProgressMode::Bars,
            ProgressMode::Auto | ProgressMode::Bars | ProgressMode::Lines => ProgressMode::Lines,
        }
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            style: self.stderr.style,
            width: self.page(),
            program: &self.program,
        }
    }

    fn page(&self) -> usize {
        self.stderr.width.map_or(PAGE, usize::from)
    }
}

/// Returns whether the reader of a pipe went away, which is its good right (`| head`).
#[must_use]
pub fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Returns how many columns the terminal behind a stream has now.
fn window(stream: &impl std::os::fd::AsFd) -> Option<u16> {
    rustix::termios::tcgetwinsize(stream)
        .ok()
        .map(|size| size.ws_col)
        .filter(|columns| *columns > 0)
}

/// A closed stderr is nobody's failure: who closed it does not want to know.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(env: &[(&str, &str)], color: ColorChoice, verbosity: Verbosity) -> Terminal {
        let seen = Stream {
            is_terminal: true,
            width: Some(80),
            style: Style::plain(),
        };
        let all = Terminal {
            stderr: seen,
            ..Terminal::default()
        };
        let find = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        all.with(find, color, verbosity)
    }

    /// Whether stderr (a terminal) and stdout (a pipe) are painted.
    fn painted(env: &[(&str, &str)], color: ColorChoice) -> (bool, bool) {
        let terminal = terminal(env, color, Verbosity::Normal);
        let coloured = |stream: Stream| stream.style == Style::new(true);
        (coloured(terminal.stderr()), coloured(terminal.stdout()))
    }

    const XTERM: (&str, &str) = ("TERM", "xterm");

    #[test]
    fn colour_follows_option_then_environment_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        assert_eq!(painted(&[XTERM], Auto), (true, false));
        assert_eq!(painted(&[XTERM, ("NO_COLOR", "0")], Auto), (false, false));
        assert_eq!(painted(&[XTERM, ("NO_COLOR", "")], Auto), (true, false));
        assert_eq!(painted(&[("TERM", "dumb")], Auto), (false, false));
        assert_eq!(painted(&[XTERM, ("CLICOLOR", "0")], Auto), (false, false));
        assert_eq!(painted(&[("CLICOLOR_FORCE", "1")], Auto), (true, true));
        assert_eq!(
            painted(&[XTERM, ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], Auto),
            (false, false)
        );
        assert_eq!(painted(&[("NO_COLOR", "1")], Always), (true, true));
        assert_eq!(painted(&[("CLICOLOR_FORCE", "1")], Never), (false, false));
    }

    #[test]
    fn bars_are_for_terminals_that_move_and_nobody_logs() {
        use ProgressMode::{Auto, Bars, Json, Lines};
        use Verbosity::{Normal, Quiet};
        let settled = |env: &[(&str, &str)], verbosity, mode| {
            terminal(env, ColorChoice::Auto, verbosity).settle(mode)
        };
        assert_eq!(settled(&[XTERM], Normal, Auto), Bars);
        assert_eq!(settled(&[XTERM, ("CI", "true")], Normal, Auto), Lines);
        assert_eq!(settled(&[("TERM", "dumb")], Normal, Auto), Lines);
        assert_eq!(settled(&[XTERM], Quiet, Bars), Lines);
        assert_eq!(settled(&[XTERM], Quiet, Json), Json);
        assert_eq!(Terminal::default().settle(Bars), Lines);
    }

    #[test]
    fn nobody_is_asked_where_nobody_can_answer() {
        let answer = Terminal::default().confirm("drop it?", "acme").unwrap();
        assert_eq!(answer, Answer::NotATerminal);
    }
}
