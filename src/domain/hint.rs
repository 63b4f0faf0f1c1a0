//! What a user can do about a failure.

use serde::{Serialize, Serializer};

/// Advice on a failure, or a command that fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Advice in words.
    Text(String),
    /// A pricesync command.
    Command {
        /// What the command does, such as `list the tenants`.
        purpose: String,
        /// The command and its options, without the program and its global options.
        args: String,
    },
}

impl Hint {
    /// Returns the hint that proposes a command.
    pub fn command(purpose: impl Into<String>, args: impl Into<String>) -> Self {
        Self::Command { purpose: purpose.into(), args: args.into() }
    }

    /// Returns the hint as text. `program` holds the options that select the database and the files,
    /// such as `pricesync --local`: without them a pasted command would act on another database.
    pub fn render(&self, program: &str) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Command { purpose, args } => format!("{purpose}: {program} {args}"),
        }
    }
}

impl<T: Into<String>> From<T> for Hint {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.render("pricesync"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_command_has_the_options_of_the_program() {
        let hint = Hint::command("list the tenants", "list-tenants");
        assert_eq!(
            hint.render("pricesync --local"),
            "list the tenants: pricesync --local list-tenants"
        );
    }
}
