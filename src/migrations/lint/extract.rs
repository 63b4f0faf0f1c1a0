//! Extracts the effects of statements from the parser's syntax trees.

use std::ops::Range;

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SourceFile, SyntaxNode};

use super::effect::Effect;
use crate::migrations::files::script::Script;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, Token, TokenKind};
use crate::migrations::sql::parser::{Limits, on_parser_thread};
use crate::migrations::sql::relations::RelationName;

/// A file as rules see it.
#[derive(Debug)]
pub(super) struct ParsedFile {
    pub(super) transaction: Transaction,
    pub(super) statements: Vec<ParsedStatement>,
}

/// A statement as rules see it.
#[derive(Debug)]
pub(super) struct ParsedStatement {
    pub(super) range: Range<usize>,
    /// Its effects, each with the byte of the file at which it begins.
    pub(super) effects: Vec<(usize, Effect)>,
}

/// Parses files, in their order.
pub(super) fn parse_all(scripts: &[Script]) -> Vec<ParsedFile> {
    on_parser_thread(|| scripts.iter().map(|script| parse(script, true)).collect())
        .unwrap_or_else(|| scripts.iter().map(|script| parse(script, false)).collect())
}

fn parse(script: &Script, may_parse: bool) -> ParsedFile {
    let may_parse = may_parse && Limits::allow_file(&script.text);
    let mut is_reported = false;
    let statements = script.statements.iter().map(|statement| {
        let range = statement.range.clone();
        let sql = &script.text[range.clone()];
        let effects = may_parse.then(|| effects(sql, range.start)).flatten();
        // Reported once, because a dump of rows would repeat it thousands of times.
        let effects = effects.unwrap_or_else(|| {
            let is_first = !std::mem::replace(&mut is_reported, true);
            let not_parsed = is_first.then_some((range.start, Effect::NotParsed));
            not_parsed.into_iter().collect()
        });
        ParsedStatement { range, effects }
    });
    ParsedFile { transaction: script.transaction, statements: statements.collect() }
}

fn effects(sql: &str, start: usize) -> Option<Vec<(usize, Effect)>> {
    let tokens = Lexer::statement(sql);
    if !Limits::allow_statement(tokens.len(), max_depth(&tokens)) {
        return None;
    }
    let parse = SourceFile::parse(sql);
    let statement = parse.tree().stmts().next()?;
    if !parse.errors().is_empty() {
        return None;
    }
    let mut extractor = Extractor { start, effects: Vec::new() };
    extractor.statement(statement, Keywords::new(sql, &tokens));
    Some(extractor.effects)
}

fn max_depth(tokens: &[Token]) -> usize {
    let (mut depth, mut max_depth) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        max_depth = max_depth.max(depth);
    }
    max_depth
}

/// Collects the effects of one statement.
pub(super) struct Extractor {
    start: usize,
    effects: Vec<(usize, Effect)>,
}

impl Extractor {
    pub(super) fn add(&mut self, node: &SyntaxNode, effect: Effect) {
        let at = usize::from(node.text_range().start());
        self.effects.push((self.start + at, effect));
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
                        Effect::CreateIndex { table, concurrently, if_not_exists },
                    );
                }
                self.stored_expression("an index", create.syntax());
            }
            Stmt::DropIndex(drop) if drop.concurrently_token().is_none() => {
                let command = "DROP INDEX";
                self.add(drop.syntax(), Effect::LockIndex { command });
            }
            Stmt::Reindex(reindex) if keywords.positions("concurrently").next().is_none() => {
                let command = "REINDEX";
                self.add(reindex.syntax(), Effect::LockIndex { command });
            }
            Stmt::Refresh(refresh) if refresh.concurrently_token().is_none() => {
                if let Some(view) = name(refresh.view_ref()) {
                    self.add(refresh.syntax(), Effect::Refresh { view });
                }
            }
            Stmt::DropView(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Effect::Cascade { kind: "view" });
            }
            Stmt::DropMaterializedView(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Effect::Cascade { kind: "materialized view" });
            }
            Stmt::DropFunction(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Effect::Cascade { kind: "function" });
            }
            Stmt::DropSequence(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Effect::Cascade { kind: "sequence" });
            }
            Stmt::DropType(drop) if cascades(drop.drop_behavior().as_ref()) => {
                self.add(drop.syntax(), Effect::Cascade { kind: "type" });
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
                self.stored_expression("a materialized view", create.syntax());
            }
            Stmt::CreateFunction(create) => self.function(create.name(), create.syntax(), keywords),
            Stmt::CreateTrigger(create) => {
                let on = create.on_relation().and_then(|on| on.relation_name_ref());
                if let Some(table) = name(on) {
                    self.add(create.syntax(), Effect::Alter { table });
                }
            }
            Stmt::DropTable(drop) => {
                for table in drop.table_name_refs() {
                    if let Some(table_name) = named(&table) {
                        let what = format!("table {table_name}");
                        self.add(table.syntax(), Effect::Remove { table: table_name, what });
                    }
                }
            }
            Stmt::Truncate(truncate) => {
                let cascade = cascades(truncate.drop_behavior().as_ref());
                let list = truncate.table_list();
                let tables = list.iter().flat_map(ast::TableList::table_relation_names);
                let tables = tables.filter_map(|table| name(Some(table))).collect();
                self.add(truncate.syntax(), Effect::Truncate { tables, cascade });
            }
            Stmt::Lock(lock) => {
                let list = lock.relation_list();
                let tables = list.iter().flat_map(ast::RelationList::relation_names);
                let tables = tables.filter_map(|table| name(Some(table))).collect();
                self.add(lock.syntax(), Effect::Lock { tables });
            }
            Stmt::Vacuum(vacuum)
                if vacuum.full_token().is_some() || keywords.has_option("full") =>
            {
                let command = "VACUUM FULL";
                self.add(vacuum.syntax(), Effect::VacuumFull { command });
            }
            Stmt::Cluster(cluster) => {
                self.add(cluster.syntax(), Effect::VacuumFull { command: "CLUSTER" });
            }
            Stmt::Insert(insert) => self.write(insert.relation_name_ref(), "INSERT", false),
            Stmt::Update(update) => {
                let all_rows =
                    update.where_clause_or_current_of().is_none() && update.from_clause().is_none();
                self.write(update.relation_name(), "UPDATE", all_rows);
            }
            Stmt::Delete(delete) => {
                let all_rows = delete.where_clause_or_current_of().is_none()
                    && delete.using_clause().is_none();
                self.write(delete.relation_name(), "DELETE", all_rows);
            }
            Stmt::Merge(merge) => self.write(merge.table_relation_name(), "MERGE", false),
            _ => {}
        }
    }

    fn write(&mut self, node: Option<impl AstNode>, command: &'static str, all_rows: bool) {
        if let Some(node) = node
            && let Some(table) = named(&node)
        {
            let effect = Effect::Write { table, command, all_rows };
            self.add(node.syntax(), effect);
        }
    }

    fn renamed(&mut self, kind: &str, node: Option<impl AstNode>) {
        if let Some(node) = node
            && let Some(table) = named(&node)
        {
            let what = format!("{kind} {table}");
            self.add(node.syntax(), Effect::Rename { table, what });
        }
    }

    fn creates(&mut self, table: Option<RelationName>, if_not_exists: bool, node: &SyntaxNode) {
        if let Some(table) = table {
            self.add(node, Effect::CreateTable { table, if_not_exists });
        }
    }

    fn create_table(&mut self, create: &ast::CreateTable) {
        self.creates(name(create.table_name()), create.if_not_exists().is_some(), create.syntax());
        for node in create.syntax().descendants() {
            if let Some(key) = ast::ReferencesConstraint::cast(node.clone()) {
                self.foreign_key(key.table(), key.references_token());
            } else if let Some(key) = ast::ForeignKeyConstraint::cast(node) {
                self.foreign_key(key.table_name_ref(), key.references_token());
            }
        }
    }

    pub(super) fn foreign_key(
        &mut self,
        to: Option<ast::TableNameRef>,
        word: Option<squawk_syntax::SyntaxToken>,
    ) {
        if let (Some(to), Some(word)) = (name(to), word) {
            let at = usize::from(word.text_range().start());
            self.effects.push((self.start + at, Effect::ForeignKey { to }));
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
        let sets_search_path =
            (keywords.positions("set")).any(|index| keywords.is(index + 1, "search_path"));
        let effect =
            Effect::Function { name: name.relation, body: body.join("\n"), sets_search_path };
        self.add(node, effect);
    }

    fn stored_expression(&mut self, object: &'static str, node: &SyntaxNode) {
        let calls: Vec<String> = super::default_value::calls(node).collect();
        if !calls.is_empty() {
            self.add(node, Effect::StoredExpression { object, calls });
        }
    }
}

fn cascades(behavior: Option<&ast::DropBehavior>) -> bool {
    matches!(behavior, Some(ast::DropBehavior::Cascade(_)))
}

pub(super) fn name(node: Option<impl AstNode>) -> Option<RelationName> {
    named(&node?)
}

fn named(node: &impl AstNode) -> Option<RelationName> {
    RelationName::parse(&node.syntax().text().to_string())
}
