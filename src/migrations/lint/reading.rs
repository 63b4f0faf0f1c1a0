//! From the parser's tree to what a statement does.

use std::ops::Range;

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SourceFile, SyntaxNode};

use super::act::{Act, AddedColumn, Checked, Name, Value};
use super::value::of_default;
use crate::migrations::parser::{Limits, with_room};
use crate::migrations::script::{Script, Transaction};
use crate::migrations::token::{Kind, Token, Tokens};
use crate::migrations::words::Words;

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
    with_room(|| scripts.iter().map(read).collect())
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
    let tokens: Vec<Token> = Tokens::new(text)
        .filter(|token| token.kind != Kind::LineComment)
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
    found.statement(statement, Words::new(text, &tokens));
    Some(found.acts)
}

fn deepest(tokens: &[Token]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What was found so far in one statement.
struct Found {
    start: usize,
    acts: Vec<(usize, Act)>,
}

impl Found {
    fn add(&mut self, node: &SyntaxNode, act: Act) {
        let at = usize::from(node.text_range().start());
        self.acts.push((self.start + at, act));
    }

    fn statement(&mut self, statement: ast::Stmt, words: Words<'_>) {
        use ast::Stmt;
        match statement {
            Stmt::CreateTable(create) => self.create_table(&create),
            Stmt::CreateTableAs(create) => {
                if let Some(table) = name(create.table_name()) {
                    let if_not_exists = create.if_not_exists().is_some();
                    self.add(
                        create.syntax(),
                        Act::CreateTable {
                            table,
                            if_not_exists,
                        },
                    );
                }
            }
            Stmt::AlterTable(alter) => self.alter_table(&alter),
            Stmt::CreateIndex(create) => {
                if let Some(table) = name(create.table_relation_name()) {
                    let concurrently = create.concurrently_token().is_some();
                    self.add(
                        create.syntax(),
                        Act::Index {
                            table,
                            concurrently,
                        },
                    );
                }
                self.kept("an index", create.syntax());
            }
            Stmt::CreateMaterializedView(create) => {
                self.kept("a materialized view", create.syntax());
            }
            Stmt::CreateFunction(create) => self.function(create.name(), create.syntax(), words),
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
                let cascade = matches!(
                    truncate.drop_behavior(),
                    Some(ast::DropBehavior::Cascade(_))
                );
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
            Stmt::Vacuum(vacuum) if vacuum.full_token().is_some() || full_option(words) => {
                let command = "VACUUM FULL";
                self.add(vacuum.syntax(), Act::VacuumFull { command });
            }
            Stmt::Cluster(cluster) => {
                self.add(cluster.syntax(), Act::VacuumFull { command: "CLUSTER" });
            }
            Stmt::Insert(insert) => self.write(insert.relation_name_ref(), "INSERT"),
            Stmt::Update(update) => self.write(update.relation_name(), "UPDATE"),
            Stmt::Delete(delete) => self.write(delete.relation_name(), "DELETE"),
            Stmt::Merge(merge) => self.write(merge.table_relation_name(), "MERGE"),
            _ => {}
        }
    }

    fn write(&mut self, node: Option<impl AstNode>, command: &'static str) {
        if let Some(node) = node
            && let Some(table) = named(&node)
        {
            self.add(node.syntax(), Act::Write { table, command });
        }
    }

    fn create_table(&mut self, create: &ast::CreateTable) {
        let Some(table) = name(create.table_name()) else {
            return;
        };
        let if_not_exists = create.if_not_exists().is_some();
        self.add(
            create.syntax(),
            Act::CreateTable {
                table,
                if_not_exists,
            },
        );
        for node in create.syntax().descendants() {
            if let Some(key) = ast::ReferencesConstraint::cast(node.clone()) {
                self.key(key.table(), key.references_token());
            } else if let Some(key) = ast::ForeignKeyConstraint::cast(node) {
                self.key(key.table_name_ref(), key.references_token());
            }
        }
    }

    fn key(&mut self, to: Option<ast::TableNameRef>, word: Option<squawk_syntax::SyntaxToken>) {
        if let (Some(to), Some(word)) = (name(to), word) {
            let at = usize::from(word.text_range().start());
            self.acts.push((self.start + at, Act::Key { to }));
        }
    }

    fn alter_table(&mut self, alter: &ast::AlterTable) {
        let Some(table) = name(alter.table_relation_name()) else {
            return;
        };
        for action in alter.actions() {
            self.action(&table, action);
        }
    }

    fn action(&mut self, table: &Name, action: ast::AlterTableAction) {
        use ast::AlterTableAction as Action;
        let table = table.clone();
        let rewrite = |by| Act::Rewrite {
            table: table.clone(),
            by,
        };
        let node = action.syntax().clone();
        let act = match action {
            Action::AddColumn(add) => return self.add_column(table, &add),
            Action::AddConstraint(add) => return self.add_constraint(table, &add),
            Action::AlterColumn(alter) => {
                let column = text_of(alter.column_name_ref());
                match alter.option() {
                    Some(ast::AlterColumnOption::SetType(_)) => Act::SetType { table, column },
                    Some(ast::AlterColumnOption::SetNotNull(_)) => {
                        Act::SetNotNull { table, column }
                    }
                    Some(ast::AlterColumnOption::SetStatistics(_)) => return,
                    _ => Act::Alter { table },
                }
            }
            Action::ValidateConstraint(validate) => Act::Validate {
                table,
                constraint: text_of(validate.constraint_name_ref()),
            },
            Action::DropColumn(drop) => Act::Remove {
                what: format!("column {}", text_of(drop.column_name_ref())),
                table,
            },
            Action::RenameColumn(rename) => Act::Rename {
                what: format!("column {}", text_of(rename.column_name_ref())),
                table,
            },
            Action::TableRenameTo(_) => Act::Rename {
                what: format!("table {table}"),
                table,
            },
            Action::SetSchema(_) => Act::Remove {
                what: format!("table {table}"),
                table,
            },
            Action::SetLogged(_) => rewrite("SET LOGGED"),
            Action::SetUnlogged(_) => rewrite("SET UNLOGGED"),
            Action::SetAccessMethod(_) => rewrite("SET ACCESS METHOD"),
            Action::SetTablespace(_) => rewrite("SET TABLESPACE"),
            _ => Act::Alter { table },
        };
        self.add(&node, act);
    }

    fn add_column(&mut self, table: Name, add: &ast::AddColumn) {
        let mut column = AddedColumn {
            name: text_of(add.column_name()),
            if_not_exists: add.if_not_exists().is_some(),
            ..AddedColumn::default()
        };
        let type_name = text_of(add.ty()).to_ascii_lowercase();
        if [
            "smallserial",
            "serial",
            "bigserial",
            "serial2",
            "serial4",
            "serial8",
        ]
        .contains(&type_name.as_str())
        {
            column.value = Value::Each(type_name);
        }
        for constraint in add.constraints() {
            use ast::Constraint;
            match constraint {
                Constraint::DefaultConstraint(default) => {
                    column.value = default
                        .expr()
                        .map_or(Value::Nothing, |expr| of_default(expr.syntax()));
                }
                Constraint::GeneratedConstraint(generated) => {
                    let stored = match generated.generated_as() {
                        Some(ast::GeneratedAs::GeneratedIdentity(_)) => Some("an identity"),
                        Some(ast::GeneratedAs::GeneratedStored(it)) => {
                            let virtually =
                                text_of(it.generated_kind()).eq_ignore_ascii_case("virtual");
                            (!virtually).then_some("a stored generated column")
                        }
                        None => None,
                    };
                    if let Some(stored) = stored {
                        column.value = Value::Each(stored.to_owned());
                    }
                }
                Constraint::NotNullConstraint(_) => column.not_null = true,
                Constraint::PrimaryKeyConstraint(_) => {
                    column.not_null = true;
                    column.checked = Some(Checked::PrimaryKey);
                }
                Constraint::UniqueConstraint(_) => column.checked = Some(Checked::Unique),
                Constraint::CheckConstraint(_) => column.checked = Some(Checked::Check),
                Constraint::ReferencesConstraint(key) => {
                    self.key(key.table(), key.references_token());
                }
                _ => {}
            }
        }
        self.add(add.syntax(), Act::AddColumn { table, column });
    }

    fn add_constraint(&mut self, table: Name, add: &ast::AddConstraint) {
        use ast::Constraint;
        let Some(constraint) = add.constraint() else {
            return;
        };
        let not_valid =
            (constraint.syntax().children()).any(|child| ast::NotValid::can_cast(child.kind()));
        let (kind, at_once, clause) = match &constraint {
            Constraint::CheckConstraint(it) => {
                (Checked::Check, !not_valid, it.constraint_name_clause())
            }
            Constraint::NotNullConstraint(it) => {
                (Checked::NotNull, !not_valid, it.constraint_name_clause())
            }
            Constraint::ForeignKeyConstraint(it) => {
                self.key(it.table_name_ref(), it.references_token());
                (Checked::Key, !not_valid, it.constraint_name_clause())
            }
            Constraint::UniqueConstraint(it) => (
                Checked::Unique,
                it.using_index().is_none(),
                it.constraint_name_clause(),
            ),
            Constraint::PrimaryKeyConstraint(it) => (
                Checked::PrimaryKey,
                it.using_index().is_none(),
                it.constraint_name_clause(),
            ),
            Constraint::ExcludeConstraint(it) => {
                (Checked::Exclude, true, it.constraint_name_clause())
            }
            _ => return,
        };
        let name = clause
            .and_then(|clause| clause.constraint_name())
            .map(|name| text_of(Some(name)));
        let not_null = match &constraint {
            Constraint::CheckConstraint(check) => {
                check.expr().and_then(|expr| never_null(expr.syntax()))
            }
            _ => None,
        };
        let act = Act::AddConstraint {
            table,
            kind,
            at_once,
            name,
            not_null,
        };
        self.add(add.syntax(), act);
    }

    fn function(&mut self, called: Option<ast::FunctionName>, node: &SyntaxNode, words: Words<'_>) {
        let Some(name) = name(called) else {
            return;
        };
        let literals = (0..words.len()).filter(|&place| words.kind(place) == Some(Kind::Literal));
        let body: Vec<&str> = literals.map(|place| words.raw(place)).collect();
        let pins_path = (words.places("set")).any(|place| words.is(place + 1, "search_path"));
        let act = Act::Function {
            name: name.table,
            body: body.join("\n"),
            pins_path,
        };
        self.add(node, act);
    }

    fn kept(&mut self, what: &'static str, node: &SyntaxNode) {
        let calls: Vec<String> = super::value::calls(node).collect();
        if !calls.is_empty() {
            self.add(node, Act::Kept { what, calls });
        }
    }
}

/// `VACUUM (FULL)`, unless it says `FULL off`.
fn full_option(words: Words<'_>) -> bool {
    (1..words.options()).any(|place| {
        words.is(place, "full")
            && !words.is_any(place + 1, &["false", "off"])
            && words.raw(place + 1) != "0"
    })
}

/// Returns the column of `column IS NOT NULL`.
fn never_null(expression: &SyntaxNode) -> Option<String> {
    let text = expression.text().to_string();
    let tokens: Vec<Token> = Tokens::new(&text).collect();
    let words = Words::new(&text, &tokens);
    let says_so =
        words.len() == 4 && words.is(1, "is") && words.is(2, "not") && words.is(3, "null");
    says_so.then(|| words.raw(0).to_owned())
}

fn name(node: Option<impl AstNode>) -> Option<Name> {
    named(&node?)
}

fn named(node: &impl AstNode) -> Option<Name> {
    Name::read(&node.syntax().text().to_string())
}

fn text_of(node: Option<impl AstNode>) -> String {
    node.map(|node| node.syntax().text().to_string().trim().to_owned())
        .unwrap_or_default()
}
