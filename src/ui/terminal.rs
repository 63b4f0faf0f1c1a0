//! The streams of the process: which are terminals, their width, whether output is coloured.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::domain::hint::Hint;
use crate::domain::os_error::without_number;
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

/// A stream of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Whether it is a terminal.
    pub is_terminal: bool,
    /// Its width in columns, for a terminal.
    pub width: Option<u16>,
    /// Its colours.
    pub style: Style,
}

/// The streams of the process and what the options say about output.
#[derive(Clone, Debug, Default)]
pub struct Terminal {
    stdout: Stream,
    stderr: Stream,
    /// Whether the user can be asked on stdin.
    can_ask: bool,
    /// Whether bars can be drawn: not on a dumb terminal, and not in CI.
    can_draw: bool,
    verbosity: Verbosity,
    program: Option<String>,
}

/// Excerpts are cut to this width if stderr is not a terminal.
const DEFAULT_WIDTH: usize = 120;

impl Terminal {
    /// Inspects the streams and `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM` and `CI`.
    pub fn detect(color: ColorChoice, verbosity: Verbosity) -> Self {
        let stream = |is_terminal, width| Stream { is_terminal, width, style: Style::plain() };
        Self {
            stdout: stream(io::stdout().is_terminal(), window(&io::stdout())),
            stderr: stream(io::stderr().is_terminal(), window(&io::stderr())),
            can_ask: io::stdin().is_terminal(),
            ..Self::default()
        }
        .with(|name| std::env::var_os(name), color, verbosity)
    }

    /// Decides about colours and bars from the environment and the options.
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
        self.can_draw = self.stderr.is_terminal && !dumb && !on("CI");
        self.verbosity = verbosity;
        self
    }

    /// Sets the program in proposed commands, with the options that select the database and the
    /// files, such as `pricesync --local`; `None` if these may contain a password.
    #[must_use]
    pub fn proposing(self, program: Option<String>) -> Self {
        Self { program, ..self }
    }

    /// Returns the program in proposed commands; see [`Terminal::proposing`].
    pub fn program(&self) -> Option<&str> {
        self.program.as_deref()
    }

    fn program_or_name(&self) -> &str {
        self.program().unwrap_or("pricesync")
    }

    /// Returns a hint as text, with a command that acts on the same database and files.
    pub fn render(&self, hint: &Hint) -> String {
        hint.render(self.program_or_name())
    }

    /// Returns what is wrong with a schema, each problem as text; see [`SchemaState::problems`].
    pub fn problems(&self, state: &SchemaState, selection: &str) -> Vec<String> {
        let problems = state.problems(selection);
        problems.iter().map(|problem| self.render(problem)).collect()
    }

    /// Returns stdout.
    pub const fn stdout(&self) -> Stream {
        self.stdout
    }

    /// Returns stderr.
    pub const fn stderr(&self) -> Stream {
        self.stderr
    }

    /// Returns the verbosity.
    pub const fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Returns a buffered writer to stdout, for results. Flush it: dropping it loses write errors.
    pub fn out(&self) -> BufWriter<StdoutLock<'static>> {
        BufWriter::with_capacity(32 * 1024, io::stdout().lock())
    }

    /// Writes a note to stderr, unless `--quiet`. It may have several lines.
    pub fn note(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            write_stderr(&format!("{}\n", clean_lines(text)));
        }
    }

    /// Writes a hint to stderr, unless `--quiet`.
    pub fn hint(&self, hint: &Hint) {
        self.note(&self.render(hint));
    }

    /// Writes a warning to stderr, unless `--quiet`.
    pub fn warn(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            let label = self.stderr.style.warning("warning:");
            write_stderr(&format!("{label} {}\n", clean_lines(without_number(text))));
        }
    }

    /// Writes an error to stderr. For causes and hints see [`Terminal::explain`].
    pub fn error(&self, text: &str) {
        let label = self.stderr.style.bad("error:");
        write_stderr(&format!("{label} {}\n", clean_lines(without_number(text))));
    }

    /// Writes an error with its causes and hints to stderr.
    pub fn explain(&self, subject: Option<&str>, explanation: &Explanation) {
        write_stderr(&explanation.render(subject, Detail::Full, self.layout()));
    }

    /// Returns the reporter for a run.
    ///
    /// `Auto` is bars if stderr is a terminal that can move its cursor and `CI` is not set, else
    /// lines. `Bars` is lines if stderr is not a terminal. With `--quiet`, every mode except JSON
    /// shows failures only.
    pub fn reporter(&self, mode: ProgressMode) -> Box<dyn Reporter + Send> {
        let level = match (self.verbosity, mode) {
            (Verbosity::Quiet, _) => LogLevel::Failures,
            (_, ProgressMode::None) => LogLevel::Warnings,
            (Verbosity::Normal, ProgressMode::Lines) => LogLevel::Steps,
            (Verbosity::Normal, _) => LogLevel::Progress,
            (Verbosity::Verbose, _) => LogLevel::All,
        };
        let style = self.stderr.style;
        match self.resolve(mode) {
            ProgressMode::Json => Box::new(JsonReporter::new(io::stderr())),
            ProgressMode::Bars => {
                Box::new(BarsReporter::on_stderr(level, style, self.program_or_name(), || {
                    window(&io::stderr()).map_or(80, usize::from)
                }))
            }
            _ => {
                let format = LogFormatter::new(level, style, self.width(), self.program_or_name());
                Box::new(LogReporter::new(io::stderr(), format))
            }
        }
    }

    /// Asks the user to type `expected`. Requires that stdin and stderr are terminals.
    pub fn confirm(&self, question: &str, expected: &str) -> io::Result<Answer> {
        if !self.can_ask || !self.stderr.is_terminal {
            return Ok(Answer::NotATerminal);
        }
        confirm::ask(question, expected, &mut io::stderr(), &mut io::stdin().lock())
    }

    /// Reads a line without echo; `None` if stdin or stderr is not a terminal.
    pub fn secret(&self, question: &str) -> io::Result<Option<String>> {
        if !self.can_ask || !self.stderr.is_terminal {
            return Ok(None);
        }
        // Before the question: what the user types at once must not be echoed either.
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        write_stderr(&clean(question));
        let answer = rpassword::read_password();
        tcsetattr(io::stdin(), OptionalActions::Now, &before)?;
        answer.map(Some)
    }

    fn resolve(&self, mode: ProgressMode) -> ProgressMode {
        match mode {
            ProgressMode::Json => ProgressMode::Json,
            ProgressMode::None => ProgressMode::None,
            _ if self.verbosity == Verbosity::Quiet => ProgressMode::Lines,
            ProgressMode::Auto if self.can_draw => ProgressMode::Bars,
            // indicatif draws nothing if stderr is not a terminal.
            ProgressMode::Bars if self.stderr.is_terminal => ProgressMode::Bars,
            ProgressMode::Auto | ProgressMode::Bars | ProgressMode::Lines => ProgressMode::Lines,
        }
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            style: self.stderr.style,
            width: self.width(),
            with_context: self.verbosity == Verbosity::Verbose,
            program: self.program_or_name(),
        }
    }

    fn width(&self) -> usize {
        self.stderr.width.map_or(DEFAULT_WIDTH, usize::from)
    }
}

/// Returns whether the reader closed the pipe, as `head` does.
pub fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Returns the current width of the terminal of a stream.
fn window(stream: &impl std::os::fd::AsFd) -> Option<u16> {
    rustix::termios::tcgetwinsize(stream)
        .ok()
        .map(|size| size.ws_col)
        .filter(|columns| *columns > 0)
}

/// Writes to stderr. Ignores write errors: stderr may be closed.
fn write_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(env: &[(&str, &str)], color: ColorChoice, verbosity: Verbosity) -> Terminal {
        let seen = Stream { is_terminal: true, width: Some(80), style: Style::plain() };
        let all = Terminal { stderr: seen, ..Terminal::default() };
        let find = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        all.with(find, color, verbosity)
    }

    /// Whether stderr (a terminal) and stdout (a pipe) are coloured.
    fn coloured(env: &[(&str, &str)], color: ColorChoice) -> (bool, bool) {
        let terminal = terminal(env, color, Verbosity::Normal);
        let is_coloured = |stream: Stream| stream.style == Style::new(true);
        (is_coloured(terminal.stderr()), is_coloured(terminal.stdout()))
    }

    const XTERM: (&str, &str) = ("TERM", "xterm");

    #[test]
    fn colour_follows_option_then_environment_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        assert_eq!(coloured(&[XTERM], Auto), (true, false));
        assert_eq!(coloured(&[XTERM, ("NO_COLOR", "0")], Auto), (false, false));
        assert_eq!(coloured(&[XTERM, ("NO_COLOR", "")], Auto), (true, false));
        assert_eq!(coloured(&[("TERM", "dumb")], Auto), (false, false));
        assert_eq!(coloured(&[XTERM, ("CLICOLOR", "0")], Auto), (false, false));
        assert_eq!(coloured(&[("CLICOLOR_FORCE", "1")], Auto), (true, true));
        assert_eq!(
            coloured(&[XTERM, ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], Auto),
            (false, false)
        );
        assert_eq!(coloured(&[("NO_COLOR", "1")], Always), (true, true));
        assert_eq!(coloured(&[("CLICOLOR_FORCE", "1")], Never), (false, false));
    }

    #[test]
    fn bars_need_a_terminal_that_can_move_its_cursor() {
        use ProgressMode::{Auto, Bars, Json, Lines};
        use Verbosity::{Normal, Quiet};
        let settled = |env: &[(&str, &str)], verbosity, mode| {
            terminal(env, ColorChoice::Auto, verbosity).resolve(mode)
        };
        assert_eq!(settled(&[XTERM], Normal, Auto), Bars);
        assert_eq!(settled(&[XTERM, ("CI", "true")], Normal, Auto), Lines);
        assert_eq!(settled(&[("TERM", "dumb")], Normal, Auto), Lines);
        assert_eq!(settled(&[XTERM], Quiet, Bars), Lines);
        assert_eq!(settled(&[XTERM], Quiet, Json), Json);
        assert_eq!(Terminal::default().resolve(Bars), Lines);
    }

    #[test]
    fn nothing_is_asked_without_a_terminal() {
        let answer = Terminal::default().confirm("drop it?", "acme").unwrap();
        assert_eq!(answer, Answer::NotATerminal);
    }
}
