//! Confirmation by typing a name.

use std::io::{self, BufRead, Write};

use super::text::clean;

/// The answer to a confirmation prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// The expected text was typed.
    Yes,
    /// Other text, or none.
    No,
    /// stdin or stderr is not a terminal, so nothing was asked.
    NotATerminal,
}

/// Writes the question to `prompt` and reads one line from `input`.
pub(super) fn ask(
    question: &str,
    expected: &str,
    prompt: &mut impl Write,
    input: &mut impl BufRead,
) -> io::Result<Answer> {
    write!(prompt, "{}\ntype '{}' to confirm: ", clean(question), clean(expected))?;
    prompt.flush()?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        // Ctrl-D leaves the cursor on the line of the prompt.
        writeln!(prompt)?;
        return Ok(Answer::No);
    }
    // An empty line must not confirm an empty name.
    Ok(if line.trim() == expected && !expected.is_empty() { Answer::Yes } else { Answer::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_name_is_a_yes() {
        let typed = |expected: &str, line: &str| {
            let mut prompt = Vec::new();
            let answer = ask("drop it?", expected, &mut prompt, &mut line.as_bytes()).unwrap();
            (answer, String::from_utf8(prompt).unwrap())
        };
        for (expected, line, answer) in [
            ("acme", "acme\n", Answer::Yes),
            ("acme", "acme\r\n", Answer::Yes),
            ("acme", "Acme\n", Answer::No),
            ("acme", "y\n", Answer::No),
            ("acme", "\n", Answer::No),
            ("", "\n", Answer::No),
        ] {
            assert_eq!(typed(expected, line).0, answer, "{line:?}");
        }
        let prompt = "drop it?\ntype 'acme' to confirm: \n".to_owned();
        assert_eq!(typed("acme", ""), (Answer::No, prompt));
    }
}
