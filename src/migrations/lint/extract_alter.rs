//! Extracts the effects of `ALTER TABLE`.

use squawk_syntax::SyntaxNode;
use squawk_syntax::ast::{self, AstNode};

use super::default_value::of_default;
use super::effect::{AddedColumn, ColumnValue, ConstraintKind, Effect};
use super::extract::{Extractor, name};
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, Token};
use crate::migrations::sql::relations::RelationName;

impl Extractor {
    pub(super) fn alter_table(&mut self, alter: &ast::AlterTable) {
        let Some(table) = name(alter.table_relation_name()) else {
            return;
        };
        for action in alter.actions() {
            self.action(&table, action);
        }
    }

    fn action(&mut self, table: &RelationName, action: ast::AlterTableAction) {
        use ast::AlterTableAction as Action;
        let table = table.clone();
        let rewrite = |by| Effect::Rewrite { table: table.clone(), by };
        let node = action.syntax().clone();
        let effect = match action {
            Action::AddColumn(add) => return self.add_column(table, &add),
            Action::AddConstraint(add) => return self.add_constraint(table, &add),
            Action::AlterColumn(alter) => {
                let column = text_of(alter.column_name_ref());
                match alter.option() {
                    Some(ast::AlterColumnOption::SetType(_)) => Effect::SetType { table, column },
                    Some(ast::AlterColumnOption::SetNotNull(_)) => {
                        Effect::SetNotNull { table, column }
                    }
                    Some(ast::AlterColumnOption::SetStatistics(_)) => return,
                    _ => Effect::Alter { table },
                }
            }
            Action::ValidateConstraint(validate) => {
                Effect::Validate { table, constraint: text_of(validate.constraint_name_ref()) }
            }
            Action::DropColumn(drop) => Effect::Remove {
                what: format!("column {}", text_of(drop.column_name_ref())),
                table,
            },
            Action::RenameColumn(rename) => Effect::Rename {
                what: format!("column {}", text_of(rename.column_name_ref())),
                table,
            },
            Action::AttachPartition(attach) => match name(attach.table_name_ref()) {
                Some(partition) => Effect::AttachPartition { table, partition },
                None => return,
            },
            Action::TableRenameTo(_) => Effect::Rename { what: format!("table {table}"), table },
            Action::SetSchema(_) => Effect::Remove { what: format!("table {table}"), table },
            Action::SetLogged(_) => rewrite("SET LOGGED"),
            Action::SetUnlogged(_) => rewrite("SET UNLOGGED"),
            Action::SetAccessMethod(_) => rewrite("SET ACCESS METHOD"),
            Action::SetTablespace(_) => rewrite("SET TABLESPACE"),
            _ => Effect::Alter { table },
        };
        self.add(&node, effect);
    }

    fn add_column(&mut self, table: RelationName, add: &ast::AddColumn) {
        let mut column = AddedColumn {
            name: text_of(add.column_name()),
            if_not_exists: add.if_not_exists().is_some(),
            ..AddedColumn::default()
        };
        let type_name = text_of(add.ty()).to_ascii_lowercase();
        if ["smallserial", "serial", "bigserial", "serial2", "serial4", "serial8"]
            .contains(&type_name.as_str())
        {
            column.value = ColumnValue::PerRow(type_name);
        }
        for constraint in add.constraints() {
            use ast::Constraint;
            match constraint {
                Constraint::DefaultConstraint(default) => {
                    column.value =
                        default.expr().map_or(ColumnValue::Null, |expr| of_default(expr.syntax()));
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
                        column.value = ColumnValue::PerRow(stored.to_owned());
                    }
                }
                Constraint::NotNullConstraint(_) => column.not_null = true,
                Constraint::PrimaryKeyConstraint(_) => {
                    column.not_null = true;
                    column.constraint = Some(ConstraintKind::PrimaryKey);
                }
                Constraint::UniqueConstraint(_) => column.constraint = Some(ConstraintKind::Unique),
                Constraint::CheckConstraint(_) => column.constraint = Some(ConstraintKind::Check),
                Constraint::ReferencesConstraint(key) => {
                    self.foreign_key(key.table(), key.references_token());
                }
                _ => {}
            }
        }
        self.add(add.syntax(), Effect::AddColumn { table, column });
    }

    fn add_constraint(&mut self, table: RelationName, add: &ast::AddConstraint) {
        use ast::Constraint;
        let Some(constraint) = add.constraint() else {
            return;
        };
        let not_valid =
            (constraint.syntax().children()).any(|child| ast::NotValid::can_cast(child.kind()));
        let (kind, checks_rows, clause) = match &constraint {
            Constraint::CheckConstraint(it) => {
                (ConstraintKind::Check, !not_valid, it.constraint_name_clause())
            }
            Constraint::NotNullConstraint(it) => {
                (ConstraintKind::NotNull, !not_valid, it.constraint_name_clause())
            }
            Constraint::ForeignKeyConstraint(it) => {
                self.foreign_key(it.table_name_ref(), it.references_token());
                (ConstraintKind::ForeignKey, !not_valid, it.constraint_name_clause())
            }
            Constraint::UniqueConstraint(it) => {
                (ConstraintKind::Unique, it.using_index().is_none(), it.constraint_name_clause())
            }
            Constraint::PrimaryKeyConstraint(it) => (
                ConstraintKind::PrimaryKey,
                it.using_index().is_none(),
                it.constraint_name_clause(),
            ),
            Constraint::ExcludeConstraint(it) => {
                (ConstraintKind::Exclude, true, it.constraint_name_clause())
            }
            _ => return,
        };
        let name =
            clause.and_then(|clause| clause.constraint_name()).map(|name| text_of(Some(name)));
        let not_null = match &constraint {
            Constraint::CheckConstraint(check) => {
                check.expr().and_then(|expr| never_null(expr.syntax()))
            }
            _ => None,
        };
        let effect = Effect::AddConstraint { table, kind, checks_rows, name, not_null };
        self.add(add.syntax(), effect);
    }
}

/// Returns the column of `column IS NOT NULL`.
fn never_null(expression: &SyntaxNode) -> Option<String> {
    let text = expression.text().to_string();
    let tokens: Vec<Token> = Lexer::new(&text).collect();
    let keywords = Keywords::new(&text, &tokens);
    let says_so = keywords.len() == 4
        && keywords.is(1, "is")
        && keywords.is(2, "not")
        && keywords.is(3, "null");
    says_so.then(|| keywords.text(0).to_owned())
}

fn text_of(node: Option<impl AstNode>) -> String {
    node.map(|node| node.syntax().text().to_string().trim().to_owned()).unwrap_or_default()
}
