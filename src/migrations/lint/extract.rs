//! From the parser's tree to what a statement does.

use std::ops::Range;

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SourceFile, SyntaxNode};

use super::effect::Act;
use crate::migrations::files::script::Script;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, Token, TokenKind};
use crate::migrations::sql::parser::{Limits, on_parser_thread};
use crate::migrations::sql::relations::RelationName;

/// A file as the rules see it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) transaction: Transaction,
    pub(super) statements: Vec<Read>,
}

/// A statement as the rules see it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) range: Range<usize>,
    /// What it does, each with the byte of the file at which it says so; `None` where the
    /// parser does not know the statement.
    pub(super) acts: Option<Vec<(usize, Act)>>,
}

/// Reads files, in their order.
pub(super) fn read_all(scripts: &[Script]) -> Vec<Reading> {
    let unread = |script: &Script| Reading {
        transaction: script.transaction,
        statements: (script.statements.iter())
            .map(|statement| Read {
                range: statement.range.clone(),
                acts: None,
            })
            .collect(),
    };
    on_parser_thread(|| scripts.iter().map(read).collect())
        .unwrap_or_else(|| scripts.iter().map(unread).collect())
}

fn read(script: &Script) -> Reading {
    let readable = Limits::allow_file(&script.text);
    let statements = script.statements.iter().map(|statement| {
        let text = &script.text[statement.range.clone()];
        let acts = readable
            .then(|| acts(text, statement.range.start))
            .flatten();
        Read {
            range: statement.range.clone(),
            acts,
        }
    });
    Reading {
        transaction: script.transaction,
        statements: statements.collect(),
    }
}

fn acts(text: &str, start: usize) -> Option<Vec<(usize, Act)>> {
    let tokens: Vec<Token> = Lexer::new(text)
        .filter(|token| token.kind != TokenKind::LineComment)
        .collect();
    if !Limits::allow_statement(tokens.len(), deepest(&tokens)) {
        return None;
    }
    let parse = SourceFile::parse(text);
    let statement = parse.tree().stmts().next()?;
    if !parse.errors().is_empty() {
        return None;
    }
    let mut found = Found {
        start,
        acts: Vec::new(),
    };
    found.statement(statement, Keywords::new(text, &tokens));
    Some(found.acts)
}

fn deepest(tokens: &[Token]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What was found so far in one statement.
pub(super) struct Found {
    start: usize,
    acts: Vec<(usize, Act)>,
}

impl Found {
    pub(super) fn add(&mut self, node: &SyntaxNode, act: Act) {
        let at = usize::from(node.text_range().start());
        self.acts.push((self.start + at, act));
    }

    fn statement(&mut self, statement: ast::Stmt, keywords: Keywords<'_>) {
        use ast::Stmt;
        match statement {
            Stmt::CreateTable(create) => self.create_table(&create),
            Stmt::CreateTableAs(create) => {
                self.creates(
                    name(create.table_name()),
                    create.if_not_exists().is_some(),
                    create.syntax(),
                );
            }
            Stmt::AlterTable(alter) => self.alter_table(&alter),
            Stmt::CreateIndex(create) => {
                if let Some(table) = name(create.table_relation_name()) {
                    let concurrently = create.concurrently_token().is_some();
                    let if_not_exists = create.if_not_exists().is_some();
                    self.add(
                        create.syntax(),
                        Act::Index {
                            table,
                            concurrently,
                            if_not_exists,
                        },
                    );
                }
                self.kept("an index", create.syntax());
            }
            Stmt::DropIndex(drop) if drop.concurrently_token().is_none() => {
                let command = "DROP INDEX";
                self.add(drop.syntax(), Act::IndexLocked { command });
            }
            Stmt::Reindex(reindex) if keywords.positions("concurrently").next().is_none() => {
                let command = "REINDEX";
                self.add(reindex.syntax(), Act::IndexLocked { command });
            }
            Stmt::Refresh(refresh) if refresh.concurrently_token().is_none() => {
                if let Some(view) = name(refresh.view_ref()) {
                    self.add(refresh.syntax(), Act::Refresh { view });
                }
            }
            Stmt::DropView(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Act::Cascade { kind: "view" });
            }
            Stmt::DropMaterializedView(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(
                    drop.syntax(),
                    Act::Cascade {
                        kind: "materialized view",
                    },
                );
            }
            Stmt::DropFunction(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Act::Cascade { kind: "function" });
            }
            Stmt::DropSequence(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Act::Cascade { kind: "sequence" });
            }
            Stmt::DropType(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Act::Cascade { kind: "type" });
            }
            Stmt::AlterView(alter) => {
                if let Some(ast::AlterViewAction::ViewRenameTo(_)) = alter.action() {
                    self.renamed("view", alter.view_ref());
                }
            }
            Stmt::AlterType(alter) => {
                if let Some(ast::AlterTypeAction::TypeRenameTo(_)) = alter.action() {
                    self.renamed("type", alter.type_name_ref());
                }
            }
            Stmt::CreateMaterializedView(create) => {
                self.creates(
                    name(create.view()),
                    create.if_not_exists().is_some(),
                    create.syntax(),
                );
                self.kept("a materialized view", create.syntax());
            }
            Stmt::CreateFunction(create) => self.function(create.name(), create.syntax(), keywords),
            Stmt::CreateTrigger(create) => {
                let on = create.on_relation().and_then(|on| on.relation_name_ref());
                if let Some(table) = name(on) {
                    self.add(create.syntax(), Act::Alter { table });
                }
            }
            Stmt::DropTable(drop) => {
                for table in drop.table_name_refs() {
                    if let Some(table_name) = named(&table) {
                        let what = format!("table {table_name}");
                        self.add(
                            table.syntax(),
                            Act::Remove {
                                table: table_name,
                                what,
                            },
                        );
                    }
                }
            }
            Stmt::Truncate(truncate) => {
                let cascade = cascades(truncate.drop_behavior().as_ref());
                let list = truncate.table_list();
                let tables = list.iter().flat_map(ast::TableList::table_relation_names);
                let tables = tables.filter_map(|table| name(Some(table))).collect();
                self.add(truncate.syntax(), Act::Truncate { tables, cascade });
            }
            Stmt::Lock(lock) => {
                let list = lock.relation_list();
                let tables = list.iter().flat_map(ast::RelationList::relation_names);
                let tables = tables.filter_map(|table| name(Some(table))).collect();
                self.add(lock.syntax(), Act::Lock { tables });
            }
            Stmt::Vacuum(vacuum) if vacuum.full_token().is_some() || full_option(keywords) => {
                let command = "VACUUM FULL";
                self.add(vacuum.syntax(), Act::VacuumFull { command });
            }
            Stmt::Cluster(cluster) => {
                self.add(cluster.syntax(), Act::VacuumFull { command: "CLUSTER" });
            }
            Stmt::Insert(insert) => self.write(insert.relation_name_ref(), "INSERT", false),
            Stmt::Update(update) => {
                let is_all =
                    update.where_clause_or_current_of().is_none() && update.from_clause().is_none();
                self.write(update.relation_name(), "UPDATE", is_all);
            }
            Stmt::Delete(delete) => {
                let is_all = delete.where_clause_or_current_of().is_none()
                    && delete.using_clause().is_none();
                self.write(delete.relation_name(), "DELETE", is_all);
            }
            Stmt::Merge(merge) => self.write(merge.table_relation_name(), "MERGE", false),
            _ => {}
        }
    }

    fn write(&mut self, node: Option<impl AstNode>, command: &'static str, is_all: bool) {
        if let Some(node) = node
            && let Some(table) = named(&node)
        {
            let act = Act::Write {
                table,
                command,
                is_all,
            };
            self.add(node.syntax(), act);
        }
    }

    fn renamed(&mut self, kind: &str, node: Option<impl AstNode>) {
        if let Some(node) = node
            && let Some(table) = named(&node)
        {
            let what = format!("{kind} {table}");
            self.add(node.syntax(), Act::Rename { table, what });
        }
    }

    fn creates(&mut self, table: Option<RelationName>, if_not_exists: bool, node: &SyntaxNode) {
        if let Some(table) = table {
            self.add(
                node,
                Act::CreateTable {
                    table,
                    if_not_exists,
                },
            );
        }
    }

    fn create_table(&mut self, create: &ast::CreateTable) {
        self.creates(
            name(create.table_name()),
            create.if_not_exists().is_some(),
            create.syntax(),
        );
        for node in create.syntax().descendants() {
            if let Some(key) = ast::ReferencesConstraint::cast(node.clone()) {
                self.key(key.table(), key.references_token());
            } else if let Some(key) = ast::ForeignKeyConstraint::cast(node) {
                self.key(key.table_name_ref(), key.references_token());
            }
        }
    }

    pub(super) fn key(
        &mut self,
        to: Option<ast::TableNameRef>,
        word: Option<squawk_syntax::SyntaxToken>,
    ) {
        if let (Some(to), Some(word)) = (name(to), word) {
            let at = usize::from(word.text_range().start());
            self.acts.push((self.start + at, Act::Key { to }));
        }
    }

    fn function(
        &mut self,
        called: Option<ast::FunctionName>,
        node: &SyntaxNode,
        keywords: Keywords<'_>,
    ) {
        let Some(name) = name(called) else {
            return;
        };
        let literals =
            (0..keywords.len()).filter(|&index| keywords.kind(index) == Some(TokenKind::Literal));
        let body: Vec<&str> = literals.map(|index| keywords.text(index)).collect();
        let pins_path =
            (keywords.positions("set")).any(|index| keywords.is(index + 1, "search_path"));
        let act = Act::Function {
            name: name.relation,
            body: body.join("\n"),
            pins_path,
        };
        self.add(node, act);
    }

    fn kept(&mut self, what: &'static str, node: &SyntaxNode) {
        let calls: Vec<String> = super::default_value::calls(node).collect();
        if !calls.is_empty() {
            self.add(node, Act::Kept { what, calls });
        }
    }
}

fn cascades(behavior: Option<&ast::DropBehavior>) -> bool {
    matches!(behavior, Some(ast::DropBehavior::Cascade(_)))
}

/// `VACUUM (FULL)`, unless it says `FULL off`.
fn full_option(keywords: Keywords<'_>) -> bool {
    (1..keywords.options()).any(|index| {
        keywords.is(index, "full")
            && !keywords.is_any(index + 1, &["false", "off"])
            && keywords.text(index + 1) != "0"
    })
}

pub(super) fn name(node: Option<impl AstNode>) -> Option<RelationName> {
    named(&node?)
}

fn named(node: &impl AstNode) -> Option<RelationName> {
    RelationName::parse(&node.syntax().text().to_string())
}
