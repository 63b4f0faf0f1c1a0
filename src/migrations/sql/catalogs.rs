//! Queries of catalogs that list the objects of all schemas.

/// Catalogs and views that list the objects of all schemas.
const CATALOGS: [&str; 14] = [
    "information_schema",
    "pg_class",
    "pg_constraint",
    "pg_enum",
    "pg_indexes",
    "pg_matviews",
    "pg_policies",
    "pg_policy",
    "pg_proc",
    "pg_sequences",
    "pg_tables",
    "pg_trigger",
    "pg_type",
    "pg_views",
];

/// What a query contains that asks for the objects of one schema.
const SCHEMA_CONDITIONS: [&str; 7] =
    ["_schema", "schemaname", "namespace", "regclass", "regtype", "regproc", "_is_visible"];

/// Returns the catalog that SQL reads without a condition on the schema, and the byte at which its
/// name begins.
pub(crate) fn without_schema(sql: &str) -> Option<(usize, &'static str)> {
    let text = sql.to_ascii_lowercase();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut words = text.split(|letter| !is_letter(letter));
    let catalog = words.find_map(|word| CATALOGS.into_iter().find(|catalog| *catalog == word))?;
    let rest = text.replace("information_schema", "");
    if SCHEMA_CONDITIONS.iter().any(|condition| rest.contains(condition)) {
        return None;
    }
    Some((text.find(catalog)?, catalog))
}
