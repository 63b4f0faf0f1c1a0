//! Whether a default is one value for all rows or one for each.

use squawk_syntax::SyntaxNode;
use squawk_syntax::ast::{self, AstNode};

use super::effect::Value;
use crate::migrations::sql::relations::RelationName;

/// Functions of the server and of its usual extensions that are declared volatile and that
/// defaults are made of.
const VOLATILE: [&str; 22] = [
    "clock_timestamp",
    "currval",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "lastval",
    "nextval",
    "random",
    "random_normal",
    "setval",
    "timeofday",
    "txid_current",
    "pg_current_xact_id",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
    "pg_backend_random",
    "lo_create",
    "pg_sleep",
    "pgp_sym_encrypt",
];

/// Those that are declared stable or immutable: their value is computed once.
const SETTLED: [&str; 44] = [
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "current_setting",
    "current_schema",
    "current_database",
    "current_date",
    "current_user",
    "session_user",
    "lower",
    "upper",
    "initcap",
    "btrim",
    "ltrim",
    "rtrim",
    "trim",
    "concat",
    "concat_ws",
    "format",
    "replace",
    "md5",
    "sha256",
    "encode",
    "decode",
    "length",
    "abs",
    "round",
    "floor",
    "ceil",
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "to_char",
    "to_date",
    "to_timestamp",
    "to_tsvector",
    "date_trunc",
    "date_part",
    "timezone",
    "make_date",
    "make_interval",
    "jsonb_build_object",
    "jsonb_build_array",
];

/// Returns what existing rows get from `DEFAULT <expression>`.
pub(super) fn of_default(expression: &SyntaxNode) -> Value {
    let text = expression.text().to_string().to_ascii_lowercase();
    // `NULL` and `NULL::type` are no default at all.
    if text
        .split("::")
        .next()
        .is_some_and(|head| head.trim() == "null")
    {
        return Value::Nothing;
    }
    let mut unknown = None;
    for called in calls(expression) {
        if VOLATILE.contains(&called.as_str()) {
            return Value::Each(format!("{called}()"));
        }
        if !SETTLED.contains(&called.as_str()) {
            unknown.get_or_insert(called);
        }
    }
    unknown.map_or(Value::Constant, |called| {
        Value::Perhaps(format!("{called}()"))
    })
}

/// Returns the functions that are called in an expression or a statement, without their schemas.
pub(super) fn calls(node: &SyntaxNode) -> impl Iterator<Item = String> + use<> {
    node.descendants()
        .filter_map(ast::CallExpr::cast)
        .filter_map(|call| call.expr())
        .filter_map(|called| RelationName::parse(&called.syntax().text().to_string()))
        .map(|name| name.relation)
}
