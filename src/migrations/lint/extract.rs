//! Extracts the effects of statements from the parser's syntax trees.

use std::ops::Range;

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SourceFile, SyntaxNode};

use super::effect::Effect;
use crate::migrations::files::script::Script;
use crate::migrations::policy::timeouts::{switched_off, switched_off_in_do};
use crate::migrations::sql::catalogs;
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
        let node = statement.syntax().clone();
        match statement {
            Stmt::CreateTable(create) => self.create_table(&create),
            Stmt::CreateTableAs(create) => {
                self.creates(create.table_name(), create.if_not_exists().is_some(), &node);
            }
            Stmt::CreateMaterializedView(create) => {
                self.creates(create.view(), create.if_not_exists().is_some(), &node);
                self.stored_expression("a materialized view", &node);
            }
            Stmt::CreateType(_) => self.creates_type(keywords, &node),
            Stmt::CreateIndex(create) => self.create_index(&create),
            Stmt::CreateFunction(create) => self.function(create.name(), &node, keywords),
            Stmt::CreateTrigger(create) => {
                let on = create.on_relation().and_then(|on| on.relation_name_ref());
                if let Some(table) = name(on) {
                    self.add(&node, Effect::Alter { table });
                }
            }
            Stmt::AlterTable(alter) => self.alter_table(&alter),
            Stmt::AlterView(alter) => {
                if let Some(ast::AlterViewAction::ViewRenameTo(_)) = alter.action() {
                    self.renamed("view", alter.view_ref());
                }
            }
            Stmt::AlterType(alter) => self.alter_type(&alter),
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
            Stmt::DropTable(drop) => {
                for table in drop.table_name_refs() {
                    if let Some(table_name) = named(&table) {
                        let what = format!("table {table_name}");
                        self.add(table.syntax(), Effect::Remove { table: table_name, what });
                    }
                }
            }
            _ => {
                if let Some(effect) = command(&statement, keywords) {
                    self.add(&node, effect);
                }
            }
        }
        let in_text = switched_off(keywords).into_iter().filter(|it| !it.is_default);
        for timeout in in_text.map(|it| it.timeout) {
            self.add(&node, Effect::SwitchOffTimeout { timeout, in_code: false });
        }
        for timeout in switched_off_in_do(keywords) {
            self.add(&node, Effect::SwitchOffTimeout { timeout, in_code: true });
        }
        if let Some((at, catalog)) = catalog_without_schema(keywords, &node) {
            self.effects.push((self.start + at, Effect::ReadCatalog { catalog }));
        }
    }

    fn create_index(&mut self, create: &ast::CreateIndex) {
        if let Some(table) = name(create.table_relation_name()) {
            let concurrently = create.concurrently_token().is_some();
            let if_not_exists = create.if_not_exists().is_some();
            let effect = Effect::CreateIndex { table, concurrently, if_not_exists };
            self.add(create.syntax(), effect);
        }
        self.stored_expression("an index", create.syntax());
    }

    fn creates_type(&mut self, keywords: Keywords<'_>, node: &SyntaxNode) {
        if let Some(name) = keywords.identifier(if keywords.text(3) == "." { 4 } else { 2 }) {
            self.add(node, Effect::CreateType { name });
        }
    }

    fn alter_type(&mut self, alter: &ast::AlterType) {
        match alter.action() {
            Some(ast::AlterTypeAction::TypeRenameTo(_)) => {
                self.renamed("type", alter.type_name_ref());
            }
            Some(ast::AlterTypeAction::AddValue(add)) => {
                if let (Some(to), Some(value)) = (name(alter.type_name_ref()), add.literal()) {
                    let value = value.syntax().text().to_string();
                    self.add(alter.syntax(), Effect::AddEnumValue { to, value });
                }
            }
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

    fn creates(&mut self, table: Option<impl AstNode>, if_not_exists: bool, node: &SyntaxNode) {
        if let Some(table) = name(table) {
            self.add(node, Effect::CreateTable { table, if_not_exists });
        }
    }

    fn create_table(&mut self, create: &ast::CreateTable) {
        self.creates(create.table_name(), create.if_not_exists().is_some(), create.syntax());
        for node in create.syntax().descendants() {
            if let Some(key) = ast::ReferencesConstraint::cast(node.clone()) {
                self.foreign_key(key.table(), key.references_token());
            } else if let Some(key) = ast::ForeignKeyConstraint::cast(node.clone()) {
                self.foreign_key(key.table_name_ref(), key.references_token());
            } else if ast::CheckConstraint::can_cast(node.kind())
                && let Some(table) = name(create.table_name())
            {
                self.add(&node, Effect::DeclareCheck { table });
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

/// Returns the effect of a command that is an effect as a whole.
fn command(statement: &ast::Stmt, keywords: Keywords<'_>) -> Option<Effect> {
    use ast::Stmt;
    let cascades = keywords.is(keywords.len() - 1, "cascade");
    let concurrently = keywords.positions("concurrently").next().is_some();
    let cascade = |kind| cascades.then_some(Effect::Cascade { kind });
    match statement {
        Stmt::DropIndex(_) if !concurrently => Some(Effect::LockIndex { command: "DROP INDEX" }),
        Stmt::Reindex(_) if !concurrently => Some(Effect::LockIndex { command: "REINDEX" }),
        Stmt::Refresh(refresh) if !concurrently => {
            Some(Effect::Refresh { view: name(refresh.view_ref())? })
        }
        Stmt::DropView(_) => cascade("view"),
        Stmt::DropMaterializedView(_) => cascade("materialized view"),
        Stmt::DropFunction(_) => cascade("function"),
        Stmt::DropSequence(_) => cascade("sequence"),
        Stmt::DropType(_) => cascade("type"),
        Stmt::Truncate(truncate) => {
            let list = truncate.table_list();
            let tables = list.iter().flat_map(ast::TableList::table_relation_names);
            let tables = tables.filter_map(|table| named(&table)).collect();
            Some(Effect::Truncate { tables, cascade: cascades })
        }
        Stmt::Lock(lock) => {
            let list = lock.relation_list();
            let tables = list.iter().flat_map(ast::RelationList::relation_names);
            Some(Effect::Lock { tables: tables.filter_map(|table| named(&table)).collect() })
        }
        Stmt::Vacuum(vacuum) if vacuum.full_token().is_some() || keywords.has_option("full") => {
            Some(Effect::VacuumFull { command: "VACUUM FULL" })
        }
        Stmt::Cluster(_) => Some(Effect::VacuumFull { command: "CLUSTER" }),
        _ => None,
    }
}

/// Returns the catalog that a query, a block or a function reads without a condition on the schema,
/// and where its name begins.
fn catalog_without_schema(
    keywords: Keywords<'_>,
    node: &SyntaxNode,
) -> Option<(usize, &'static str)> {
    let queries = ["do", "select", "with", "insert", "update", "delete", "merge"];
    if !keywords.is_any(0, &queries) && !keywords.creates_routine() {
        return None;
    }
    let (at, catalog) = catalogs::without_schema(&node.text().to_string())?;
    Some((usize::from(node.text_range().start()) + at, catalog))
}

pub(super) fn name(node: Option<impl AstNode>) -> Option<RelationName> {
    named(&node?)
}

fn named(node: &impl AstNode) -> Option<RelationName> {
    RelationName::parse(&node.syntax().text().to_string())
}
