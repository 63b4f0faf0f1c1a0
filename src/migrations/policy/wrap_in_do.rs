//! A file's text wrapped so that the server itself keeps it inside the transaction.

use std::fmt::Write as _;

/// A file's text as it is sent where its seal is [`Seal::Server`](super::check::Seal::Server).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSql {
    /// The statement to send, alone or with others.
    pub sql: String,
    /// How many characters stand before the file's text. The server reports errors of the
    /// text as *internal* positions, which already count from its beginning; this is for
    /// positions in the whole message.
    pub text_starts_at: usize,
}

/// Returns a file's text inside `DO ... EXECUTE`, where the server refuses transaction
/// control whatever the grammar of the text (SQLSTATE 0A000, manual section 43.5.4).
#[must_use]
pub fn sealed_sql(text: &str) -> SealedSql {
    let body = free_tag(text, "file");
    // The outer tag has to be free in the inner tag as well.
    let block = free_tag(text, "seal");
    let before = format!("DO {block} BEGIN EXECUTE {body}");
    let mut sql = String::with_capacity(before.len() + text.len() + 32);
    sql.push_str(&before);
    sql.push_str(text);
    // A line comment at the end of the text does not reach over the end of the literal.
    let _ = write!(sql, "{body}; END {block}");
    SealedSql {
        sql,
        text_starts_at: before.chars().count(),
    }
}

fn free_tag(text: &str, stem: &str) -> String {
    let mut number = 0_u64;
    loop {
        // Looked for without its last `$`: a text that ends in `$file0` would otherwise
        // make a tag together with the `$` that follows.
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
    use crate::migrations::sql::lexer::{Kind, Tokens};

    #[test]
    fn a_sealed_text_keeps_its_tags_to_itself() {
        let sealed = sealed_sql("select $file0$, '$seal0$'; -- end $file1");
        assert_eq!(
            sealed.sql,
            "DO $seal1$ BEGIN EXECUTE $file2$select $file0$, '$seal0$'; -- end $file1$file2$; END $seal1$"
        );
        let text: String = sealed.sql.chars().skip(sealed.text_starts_at).collect();
        assert!(text.starts_with("select $file0$"));
    }

    proptest! {
        #[test]
        fn a_sealed_text_is_one_statement_whatever_it_holds(text in r"[$a-zA-Z0-9_; '\n-]{0,40}|(\$(file|seal)[0-3]\$?|;|x){0,12}") {
            let sealed = sealed_sql(&text);
            let tokens: Vec<_> = Tokens::new(&sealed.sql).collect();
            prop_assert_eq!(tokens.len(), 2, "DO and one literal: {}", sealed.sql);
            let block = &sealed.sql[tokens[1].start..tokens[1].end];
            let inner = block.split_once("$ ").unwrap().1.rsplit_once(" $").unwrap().0;
            let inner: Vec<_> = Tokens::new(inner).map(|token| token.kind).collect();
            prop_assert_eq!(inner, [Kind::Word, Kind::Word, Kind::Literal, Kind::Semicolon, Kind::Word]);
        }
    }
}
