//! Whether statements do the same in every empty schema.

use squawk_syntax::ast::{self, AstNode as _, Stmt};
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use crate::migrations::sql::parser::on_parser_thread;
use crate::migrations::sql::split::Statement;

const NOT_PARSED: &str = "the parser does not know this statement";

/// Returns the first statement that may do different things in two empty schemas, by its index,
/// and the reason. `None` if all of them only define objects, whatever the data, the schema's name
/// and the time. A default that is *evaluated* later, such as `now()`, is a definition; the literal
/// `'now'` is not.
pub(crate) fn nondeterminism(
    text: &str,
    statements: &[Statement],
) -> Option<(usize, &'static str)> {
    let first = || {
        let mut numbered = statements.iter().enumerate();
        numbered.find_map(|(index, statement)| {
            let parse = SourceFile::parse(&text[statement.range.clone()]);
            let reason = parse.tree().stmts().next().map_or(Some(NOT_PARSED), |it| reason(&it));
            reason.map(|reason| (index, reason))
        })
    };
    on_parser_thread(first).unwrap_or(Some((0, NOT_PARSED)))
}

/// Allows only the listed kinds of statement, so that kinds which a later parser adds are rejected.
fn reason(stmt: &Stmt) -> Option<&'static str> {
    let known = matches!(
        stmt,
        Stmt::CreateTable(_)
            | Stmt::AlterTable(_)
            | Stmt::DropTable(_)
            | Stmt::CreateIndex(_)
            | Stmt::AlterIndex(_)
            | Stmt::DropIndex(_)
            | Stmt::CreateSequence(_)
            | Stmt::AlterSequence(_)
            | Stmt::DropSequence(_)
            | Stmt::CreateType(_)
            | Stmt::AlterType(_)
            | Stmt::DropType(_)
            | Stmt::CreateDomain(_)
            | Stmt::AlterDomain(_)
            | Stmt::DropDomain(_)
            | Stmt::CreateView(_)
            | Stmt::AlterView(_)
            | Stmt::DropView(_)
            | Stmt::CreateFunction(_)
            | Stmt::AlterFunction(_)
            | Stmt::DropFunction(_)
            | Stmt::CreateProcedure(_)
            | Stmt::AlterProcedure(_)
            | Stmt::DropProcedure(_)
            | Stmt::CreateTrigger(_)
            | Stmt::AlterTrigger(_)
            | Stmt::DropTrigger(_)
            | Stmt::CreatePolicy(_)
            | Stmt::AlterPolicy(_)
            | Stmt::DropPolicy(_)
            | Stmt::CreateStatistics(_)
            | Stmt::AlterStatistics(_)
            | Stmt::DropStatistics(_)
            | Stmt::CommentOn(_)
            | Stmt::Update(_)
            | Stmt::Delete(_)
    );
    if !known {
        return Some(
            "this kind of statement may depend on data or on objects outside of the schema",
        );
    }
    let changes_rows = matches!(stmt, Stmt::Update(_) | Stmt::Delete(_));
    let is_comment = matches!(stmt, Stmt::CommentOn(_));
    stmt.syntax().descendants_with_tokens().find_map(|element| {
        if let Some(node) = element.as_node() {
            return copied_definition(node)
                .or_else(|| {
                    (changes_rows && ast::WithClause::can_cast(node.kind()))
                        .then_some("WITH may change other tables")
                })
                .or_else(|| {
                    ast::Temp::can_cast(node.kind())
                        .then_some("a temporary object does not belong to the schema")
                });
        }
        let token = element.as_token()?;
        (!is_comment && is_quoted(token.kind()) && contains_time_word(token.text()))
            .then_some("'now' and similar literals become the time at which the statement runs")
    })
}

/// Rejects clauses that copy the definition of another object.
fn copied_definition(node: &SyntaxNode) -> Option<&'static str> {
    let kind = node.kind();
    (ast::LikeClause::can_cast(kind)
        || ast::Inherits::can_cast(kind)
        || ast::PartitionOf::can_cast(kind)
        || ast::OfType::can_cast(kind)
        || ast::PercentType::can_cast(kind)
        || ast::PercentTypeClause::can_cast(kind))
    .then_some("it copies the definition that another object has at that moment")
}

const fn is_quoted(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::STRING
            | SyntaxKind::ESC_STRING
            | SyntaxKind::UNICODE_ESC_STRING
            | SyntaxKind::NATIONAL_STRING
    )
}

/// Keywords that the server's date input resolves when it reads them (manual section 8.5.1.4).
fn contains_time_word(literal: &str) -> bool {
    literal.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| {
        ["now", "today", "tomorrow", "yesterday"].iter().any(|time| word.eq_ignore_ascii_case(time))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::domain::script::Scope;
    use crate::migrations::Script;

    fn why(text: &str) -> Option<String> {
        let path = Path::new("V1__x.sql");
        Script::read(path, text.as_bytes().to_vec(), Scope::Tenant)
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
            .nondeterminism()
    }

    #[test]
    fn definitions_are_deterministic() {
        for text in [
            "create table t (id bigint generated by default as identity primary key, at timestamptz default now(), check (name like 'x%'), name text)",
            "create table if not exists a (b serial references public.c)",
            "alter table a add column b int default 1, drop column c; alter table a rename to d",
            "drop table if exists a cascade",
            "create unique index on t (lower(name)) where name is not null; drop index i",
            "create sequence s start 7; alter sequence s owned by t.id; drop sequence s",
            "create type mood as enum ('sad'); alter type mood add value 'ok'; create domain d as text check (value <> '')",
            "create view v as select * from t; drop view v",
            "create function f() returns trigger language plpgsql as $$ begin insert into log values ('now'); return new; end $$",
            "create trigger t before insert on a for each row execute function f()",
            "create policy p on t using (owner = current_user); alter table t enable row level security",
            "create statistics s on a, b from t",
            "comment on table t is 'what is true now'",
            "update t set a = 1 where b is null; delete from t",
            "-- only a comment",
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }

    #[test]
    fn data_time_and_unknown_statements_are_not_deterministic() {
        for text in [
            "insert into t values (1)",
            "select f()",
            "do $$ begin end $$",
            "call p()",
            "create table t as select 1 as a",
            "select 1 as a into t",
            "create table t (like public.other)",
            "create table t () inherits (u)",
            "create table t partition of u default",
            "create temp table t (a int)",
            "create materialized view v as select 1 as a",
            "create table t (a timestamptz default 'now')",
            "create table t (a timestamptz default ' TODAY 12:00')",
            "create table t (a date default E'tomorrow'::date)",
            "grant select on t to public",
            "set local work_mem = '1MB'",
            "prepare q as select 1; execute q",
            "copy t from '/tmp/x'",
            "truncate t",
            "with gone as (delete from a returning *) update t set x = 1",
            "create function f(a public.t.b%type) returns int language sql as 'select 1'",
            "create rule r as on insert to t do nothing",
            "create aggregate s (int) (sfunc = int4pl, stype = int)",
            "refresh materialized view v",
            "create frobnication f",
        ] {
            assert!(why(text).is_some(), "{text}");
        }
    }

    #[test]
    fn the_reason_names_the_script_and_the_line() {
        assert_eq!(
            why("create table t ();\n\ninsert into t values (1)").unwrap(),
            "V1__x, line 3: this kind of statement may depend on data or on objects outside of the schema"
        );
    }
}
