//! The commands that texts propose reach what this command reached.

use std::borrow::Cow;
use std::sync::OnceLock;

/// How this process was called, known once the command line is read.
static INVOCATION: OnceLock<Invocation> = OnceLock::new();

#[derive(Debug)]
struct Invocation {
    program: String,
    commands: Vec<String>,
}

/// Notes how this process was called: the program with the options that lead to the same database
/// and files, and the names of its commands. Only the first time counts.
pub fn invoked_as(program: String, commands: impl Iterator<Item = String>) {
    let commands = commands.collect();
    let _ = INVOCATION.set(Invocation { program, commands });
}

/// Returns a text in which each command of ours has these options: pasted without them it would
/// go to another database.
pub fn addressed(text: &str) -> Cow<'_, str> {
    match INVOCATION.get() {
        Some(invocation) => invocation.addressed(text),
        None => text.into(),
    }
}

impl Invocation {
    const BARE: &str = "pricesync";

    fn addressed<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.program == Self::BARE || !text.contains(Self::BARE) {
            return text.into();
        }
        let mut parts = text.split(Self::BARE);
        let mut result = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let begins_one = |command: &String| {
                let rest = part
                    .strip_prefix(' ')
                    .and_then(|part| part.strip_prefix(command.as_str()));
                rest.is_some_and(|rest| {
                    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-')
                })
            };
            let is_ours = self.commands.iter().any(begins_one);
            result.push_str(if is_ours { &self.program } else { Self::BARE });
            result.push_str(part);
        }
        result.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_command_gets_the_options() {
        let invocation = |program: &str| Invocation {
            program: program.to_owned(),
            commands: vec!["doctor".to_owned(), "drop-schema".to_owned()],
        };
        let text = "pricesync doctor --fix missing; pricesync drop-schema; pricesync drop-schemas, pricesync --local doctor, pricesync.toml";
        assert_eq!(invocation("pricesync").addressed(text), text);
        assert_eq!(
            invocation("pricesync --config 'a b'").addressed(text),
            "pricesync --config 'a b' doctor --fix missing; pricesync --config 'a b' drop-schema; pricesync drop-schemas, pricesync --local doctor, pricesync.toml"
        );
    }
}
