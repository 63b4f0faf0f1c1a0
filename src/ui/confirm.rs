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

    fn typed(line: &str) -> (Answer, String) {
        let mut prompt = Vec::new();
        let answer = ask("drop it?", "acme", &mut prompt, &mut line.as_bytes()).unwrap();
        (answer, String::from_utf8(prompt).unwrap())
    }

    #[test]
    fn only_the_expected_name_is_a_yes() {
        assert_eq!(typed("acme\n").0, Answer::Yes);
        assert_eq!(typed("acme\r\n").0, Answer::Yes);
        assert_eq!(typed("Acme\n").0, Answer::No);
        assert_eq!(typed("y\n").0, Answer::No);
        assert_eq!(typed("\n").0, Answer::No);
    }

    #[test]
    fn an_empty_name_is_never_confirmed() {
        let answer = ask("drop it?", "", &mut Vec::new(), &mut "\n".as_bytes());
        assert_eq!(answer.unwrap(), Answer::No);
    }

    #[test]
    fn the_end_of_the_input_is_a_no() {
        let (answer, prompt) = typed("");
        assert_eq!(answer, Answer::No);
        assert_eq!(prompt, "drop it?\ntype 'acme' to confirm: \n");
    }
}
