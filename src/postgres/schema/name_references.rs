//! What names a schema as text, so that no rename reaches it: bodies and settings of functions,
//! arguments of triggers, settings of roles and of the database, literals in expressions.
//!
//! Views, keys, policies and defaults know what they use by number and follow a rename; they are
//! read relative to the schema, so that only a name inside a literal is left to be found.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::fingerprint::relative_to;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};

/// Returns what says the name of the schema, in words, by way of an open transaction.
///
/// Upper and lower case are not told apart: a bare name is folded by the server. What a program
/// outside the server says, or a job that an extension keeps in a table, is not found.
///
/// # Errors
///
/// The driver's error; the transaction is of no more use then.
pub(crate) async fn of_schema(
    session: &Session,
    schema: &SchemaName,
) -> Result<Vec<String>, Error> {
    let everywhere = session.rows(&everywhere(schema)).await?;
    let inside = relative_to(session, schema, &inside(schema)).await?;
    let mut found: Vec<String> = everywhere
        .iter()
        .chain(&inside)
        .filter_map(|row| mention(row, schema))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn mention(row: &Row, schema: &SchemaName) -> Option<String> {
    let (what, text) = (row.optional(0)?, row.optional(1)?);
    names(text, schema).then(|| what.to_owned())
}

/// Returns whether a text names a schema, as it is or as it stands between quotes, in any case.
pub(crate) fn names(text: &str, schema: &SchemaName) -> bool {
    let quoted = schema.as_str().replace('"', "\"\"");
    says(text, schema.as_str()) || says(text, &quoted)
}

/// Returns whether a text holds a name as a word of its own, in any case.
fn says(text: &str, name: &str) -> bool {
    is_word_of(&name.to_lowercase(), &text.to_lowercase())
}

/// Returns whether a name stands in a text and is not a part of a longer one there.
pub(crate) fn is_word_of(name: &str, text: &str) -> bool {
    words_of(name, text).next().is_some()
}

/// Returns a text with something else where it holds a name as a word of its own, as far as what
/// stands before and behind it says so.
pub(crate) fn replaced(
    text: &str,
    name: &str,
    by: &str,
    is_meant: impl Fn(&str, &str) -> bool,
) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = 0;
    let meant = |at: &usize| is_meant(&text[..*at], &text[at + name.len()..]);
    for at in words_of(name, text).filter(meant) {
        result.push_str(&text[rest..at]);
        result.push_str(by);
        rest = at + name.len();
    }
    result + &text[rest..]
}

fn words_of<'a>(name: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let places = text.match_indices(name).map(|(at, _)| at);
    places.filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Returns a condition that leaves out what cannot say the name.
fn may_say(text: &str, schema: &SchemaName) -> String {
    let name = schema.as_str();
    let quoted = name.replace('"', "\"\"");
    let like = |name: &str| format!("strpos(lower({text}), lower({})) > 0", escape_literal(name));
    format!("({} OR {})", like(name), like(&quoted))
}

fn everywhere(schema: &SchemaName) -> String {
    let body = "coalesce(p.prosrc, '') || ' ' || coalesce(array_to_string(p.proconfig, ' '), '')";
    let settings = "array_to_string(s.setconfig, ' ')";
    format!(
        "SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0), {body} FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pricesync') AND {} \
         AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e') \
         UNION ALL SELECT concat_ws(' in ', CASE WHEN s.setrole = 0 THEN 'settings' ELSE 'settings of role ' || s.setrole::regrole END, 'database ' || d.datname), {settings} \
         FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase \
         WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND {} \
         UNION ALL SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0), encode(t.tgargs, 'escape') FROM pg_trigger t \
         WHERE t.tgnargs > 0 AND NOT t.tgisinternal",
        may_say(body, schema),
        may_say(settings, schema),
    )
}

/// Expressions of what is in the schema, with its own names bare.
fn inside(schema: &SchemaName) -> String {
    let of_relations = format!(
        "JOIN pg_class c ON c.oid = {{}} WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {})",
        escape_literal(schema.as_str())
    );
    let on = |column: &str| of_relations.replace("{}", column);
    format!(
        "SELECT pg_describe_object('pg_class'::regclass, v.oid, 0), pg_get_viewdef(v.oid) FROM pg_class v {} AND v.relkind IN ('v', 'm') \
         UNION ALL SELECT pg_describe_object('pg_attrdef'::regclass, x.oid, 0), pg_get_expr(x.adbin, x.adrelid) FROM pg_attrdef x {} \
         UNION ALL SELECT pg_describe_object('pg_constraint'::regclass, x.oid, 0), pg_get_constraintdef(x.oid) FROM pg_constraint x {} AND x.contype = 'c' \
         UNION ALL SELECT pg_describe_object('pg_policy'::regclass, x.oid, 0), concat_ws(' ', pg_get_expr(x.polqual, x.polrelid), pg_get_expr(x.polwithcheck, x.polrelid)) FROM pg_policy x {} \
         UNION ALL SELECT pg_describe_object('pg_class'::regclass, x.indexrelid, 0), concat_ws(' ', pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid)) FROM pg_index x {} AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL)",
        on("v.oid"),
        on("x.adrelid"),
        on("x.conrelid"),
        on("x.polrelid"),
        on("x.indrelid"),
    )
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn a_name_is_found_whole_and_in_any_case() {
        assert!(says("SELECT * FROM Tenant_Acme.products", "tenant_acme"));
        assert!(says("search_path=tenant_acme, public", "tenant_acme"));
        assert!(says("\"Công ty\".x", "Công ty"));
        assert!(!says("SELECT * FROM tenant_acme2.products", "tenant_acme"));
        assert!(!says("old_tenant_acme tenant_acmes", "tenant_acme"));
        assert!(says("tenant_acme2 tenant_acme", "tenant_acme"));
        assert!(!says("tenant_ấ my_tenant_a tenant_a1 tenant", "tenant_a"));
    }
}
