//! The command line of this process, for hints and for the stored run.

use crate::ui::shell_word;

/// Returns the command line, quoted for a shell; `None` where it holds a database address, which
/// may contain a password, or reads stdin, which cannot be read again.
pub(crate) fn command_line() -> Option<String> {
    let mut line = "pricesync".to_owned();
    for arg in std::env::args_os().skip(1) {
        let arg = arg.into_string().ok()?;
        let is_address = arg.starts_with("-d") || arg.starts_with("--database-url");
        let is_stdin = arg == "-" || arg.ends_with("=-");
        if is_address || is_stdin || arg.contains("://") || arg.contains("password") {
            return None;
        }
        line.push(' ');
        line.push_str(&shell_word(&arg));
    }
    Some(line)
}
