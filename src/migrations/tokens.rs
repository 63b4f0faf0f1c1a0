//! The words of a file, statement by statement, as PostgreSQL's lexer would see them.

use std::ops::Range;

use squawk_syntax::ast::{AstNode as _, Stmt};
use squawk_syntax::{SourceFile, SyntaxElement, SyntaxKind, SyntaxNode, SyntaxToken};

/// One token that means something.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The text as written.
    pub(super) text: String,
    /// First byte in the file.
    pub(super) start: usize,
    /// Byte behind the last.
    pub(super) end: usize,
    /// Whether it is a literal, so that its words are nobody's keywords.
    pub(super) is_literal: bool,
}

impl Token {
    /// Returns whether this is the keyword or bare name, in whatever case.
    pub(super) fn is(&self, word: &str) -> bool {
        !self.is_literal && self.text.eq_ignore_ascii_case(word)
    }
}

/// The tokens of one statement, its semicolon left out.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) tokens: Vec<Token>,
}

impl Statement {
    /// Returns the bytes from the first token to the last.
    pub(super) fn range(&self) -> Range<usize> {
        let start = self.tokens.first().map_or(0, |token| token.start);
        start..self.tokens.last().map_or(start, |token| token.end)
    }

    /// Returns whether the statement begins with these words.
    pub(super) fn begins(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len()
            && self
                .tokens
                .iter()
                .zip(words)
                .all(|(token, word)| token.is(word))
    }

    /// Returns the first of several positions at which these words stand in a row.
    pub(super) fn find(&self, words: &[&str]) -> Option<usize> {
        self.tokens
            .windows(words.len())
            .position(|window| window.iter().zip(words).all(|(token, word)| token.is(word)))
    }

    /// Returns whether the word stands anywhere.
    pub(super) fn has(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| token.is(word))
    }
}

/// A file in statements.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) statements: Vec<Statement>,
    /// Whether the parser understood all of it, so that the borders are the server's own.
    pub(super) understood: bool,
}

/// Splits a text. What the parser does not understand is split at its semicolons.
pub(super) fn split(text: &str) -> Statements {
    let parse = SourceFile::parse(text);
    let root = parse.syntax_node();
    if parse.errors().is_empty() {
        let statements = parse
            .tree()
            .stmts()
            .filter(|statement| !matches!(statement, Stmt::EmptyStmt(_)))
            .map(|statement| Statement {
                tokens: tokens(statement.syntax())
                    .filter(|token| token.text != ";" || token.is_literal)
                    .collect(),
            })
            .filter(|statement: &Statement| !statement.tokens.is_empty())
            .collect();
        // A semicolon within BEGIN ATOMIC is left out of the tokens and kept in the range.
        return Statements {
            statements,
            understood: true,
        };
    }
    let mut statements = vec![Statement { tokens: Vec::new() }];
    for token in tokens(&root) {
        if token.text == ";" && !token.is_literal {
            statements.push(Statement { tokens: Vec::new() });
        } else if let Some(last) = statements.last_mut() {
            last.tokens.push(token);
        }
    }
    statements.retain(|statement| !statement.tokens.is_empty());
    Statements {
        statements,
        understood: false,
    }
}

fn tokens(node: &SyntaxNode) -> impl Iterator<Item = Token> {
    node.descendants_with_tokens()
        .filter_map(SyntaxElement::into_token)
        .filter(|token| !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT))
        .map(|token: SyntaxToken| Token {
            is_literal: matches!(
                token.kind(),
                SyntaxKind::STRING
                    | SyntaxKind::ESC_STRING
                    | SyntaxKind::DOLLAR_QUOTED_STRING
                    | SyntaxKind::UNICODE_ESC_STRING
                    | SyntaxKind::NATIONAL_STRING
                    | SyntaxKind::BIT_STRING
                    | SyntaxKind::BYTE_STRING
            ),
            start: usize::from(token.text_range().start()),
            end: usize::from(token.text_range().end()),
            text: token.text().to_owned(),
        })
}
