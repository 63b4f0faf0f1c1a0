//! Wraps SQL in a `DO` block, in which the server rejects transaction commands.

use std::fmt::Write as _;

/// A text inside a `DO` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoBlock {
    /// The `DO` statement, without a semicolon.
    pub sql: String,
    /// The number of characters before the text, for positions that the server counts from the start
    /// of the message. Errors inside of the text have *internal* positions, which count from its
    /// start.
    pub text_offset: usize,
}

/// Wraps a text in `DO ... EXECUTE`, where the server rejects transaction commands whatever the
/// grammar of the text (SQLSTATE 0A000, manual section 43.5.4).
pub fn wrap_in_do(text: &str) -> DoBlock {
    let body = free_tag(text, "file");
    // The tags differ in their stems, so the outer one does not occur in the inner one.
    let tag = free_tag(text, "block");
    let before = format!("DO {tag} BEGIN EXECUTE {body}");
    let mut sql = String::with_capacity(before.len() + text.len() + 32);
    sql.push_str(&before);
    sql.push_str(text);
    // The literal ends a line comment at the end of the text.
    let _ = write!(sql, "{body}; END {tag}");
    DoBlock { sql, text_offset: before.chars().count() }
}

fn free_tag(text: &str, stem: &str) -> String {
    let mut number = 0_u64;
    loop {
        // Without the closing `$`: a text that ends in `$file0` would form the tag with the `$` that
        // follows it.
        let open_tag = format!("${stem}{number}");
        if !text.contains(&open_tag) {
            return open_tag + "$";
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::migrations::sql::lexer::{Lexer, TokenKind};

    #[test]
    fn tags_are_chosen_that_the_text_does_not_contain() {
        let block = wrap_in_do("select $file0$, '$block0$'; -- end $file1");
        assert_eq!(
            block.sql,
            "DO $block1$ BEGIN EXECUTE $file2$select $file0$, '$block0$'; -- end $file1$file2$; END $block1$"
        );
        let text: String = block.sql.chars().skip(block.text_offset).collect();
        assert!(text.starts_with("select $file0$"));
    }

    proptest! {
        #[test]
        fn a_wrapped_text_is_one_statement(text in r"[$a-zA-Z0-9_; '\n-]{0,40}|(\$(file|block)[0-3]\$?|;|x){0,12}") {
            let block = wrap_in_do(&text);
            let tokens: Vec<_> = Lexer::new(&block.sql).collect();
            prop_assert_eq!(tokens.len(), 2, "DO and one literal: {}", block.sql);
            let literal = &block.sql[tokens[1].start..tokens[1].end];
            let inner = literal.split_once("$ ").unwrap().1.rsplit_once(" $").unwrap().0;
            let inner: Vec<_> = Lexer::new(inner).map(|token| token.kind).collect();
            prop_assert_eq!(inner, [TokenKind::Word, TokenKind::Word, TokenKind::Literal, TokenKind::Semicolon, TokenKind::Word]);
        }
    }
}
