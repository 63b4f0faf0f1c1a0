//! Decides whether a default is one value for all rows or a value for each.

use squawk_syntax::SyntaxNode;
use squawk_syntax::ast::{self, AstNode};

use super::effect::ColumnValue;
use crate::migrations::sql::relations::RelationName;

/// Volatile functions of the server and of common extensions that defaults use.
const VOLATILE: &str = "clock_timestamp currval gen_random_bytes gen_random_uuid gen_salt lastval \
    nextval random random_normal setval timeofday txid_current pg_current_xact_id \
    uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 uuidv4 uuidv7 \
    pg_backend_random lo_create pg_sleep pgp_sym_encrypt";

/// Stable and immutable functions, whose value is computed once.
const STABLE: &str = "now transaction_timestamp statement_timestamp current_setting current_schema \
    current_database current_date current_user session_user lower upper initcap \
    btrim ltrim rtrim trim concat concat_ws format replace md5 sha256 encode decode \
    length abs round floor ceil coalesce nullif greatest least to_char to_date \
    to_timestamp to_tsvector date_trunc date_part timezone make_date make_interval \
    jsonb_build_object jsonb_build_array";

/// Returns the value that `DEFAULT <expression>` gives to existing rows.
pub(super) fn of_default(expression: &SyntaxNode) -> ColumnValue {
    let text = expression.text().to_string().to_ascii_lowercase();
    // `NULL` and `NULL::type` have no effect.
    if text.split("::").next().is_some_and(|head| head.trim() == "null") {
        return ColumnValue::Null;
    }
    let mut unknown = None;
    for called in calls(expression) {
        if is_in(VOLATILE, &called) {
            return ColumnValue::PerRow(format!("{called}()"));
        }
        if !is_in(STABLE, &called) {
            unknown.get_or_insert(called);
        }
    }
    unknown.map_or(ColumnValue::Constant, |called| ColumnValue::MaybePerRow(format!("{called}()")))
}

/// Returns the functions that an expression or a statement calls, without their schemas.
pub(super) fn calls(node: &SyntaxNode) -> impl Iterator<Item = String> + use<> {
    node.descendants()
        .filter_map(ast::CallExpr::cast)
        .filter_map(|call| call.expr())
        .filter_map(|called| RelationName::parse(&called.syntax().text().to_string()))
        .map(|name| name.relation)
}

fn is_in(functions: &str, name: &str) -> bool {
    functions.split_ascii_whitespace().any(|it| it == name)
}
