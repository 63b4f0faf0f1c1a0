use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "rewrites-table",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "statement that writes every row: volatile default, serial, SET LOGGED, UPDATE without WHERE, REFRESH",
    why: "The table is locked for as long as all of its rows are written.",
    server: "All versions: ACCESS EXCLUSIVE until COMMIT for a rewrite and for REFRESH, row locks for UPDATE and DELETE. \
             A constant or stable default has not rewritten the table since 11.",
    found: &[
        "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE orders ADD COLUMN b text DEFAULT ('x' || md5(random()::text))",
        "ALTER TABLE orders ADD COLUMN b int DEFAULT my_function()",
        "ALTER TABLE orders ADD COLUMN b serial",
        "ALTER TABLE orders ADD COLUMN b int GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE orders ADD COLUMN b int GENERATED ALWAYS AS (total + 1) STORED",
        "ALTER TABLE orders SET UNLOGGED",
        "ALTER TABLE orders SET TABLESPACE x",
        "UPDATE orders SET total = 1",
        "DELETE FROM orders",
        "WITH w AS (SELECT 1) UPDATE ONLY orders SET total = 2",
        "REFRESH MATERIALIZED VIEW v",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN token uuid;\nALTER TABLE orders ALTER COLUMN token SET DEFAULT gen_random_uuid();",
        "CREATE TABLE n (id int); ALTER TABLE n ADD COLUMN b serial",
        "CREATE TABLE n (id int DEFAULT random())",
        "UPDATE orders SET total = 1 WHERE total IS NULL",
        "DELETE FROM orders USING items WHERE orders.id = items.id",
        "UPDATE orders SET total = items.id FROM items WHERE orders.id = items.id",
        "CREATE TABLE n (id int); UPDATE n SET id = 1",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "CREATE MATERIALIZED VIEW v AS SELECT 1; REFRESH MATERIALIZED VIEW v",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    match effect {
        Effect::AddColumn { table, column } if now.in_use(table) => match &column.value {
            ColumnValue::PerRow(by) => Some(rewrite(table, by, true)),
            ColumnValue::MaybePerRow(by) => Some(rewrite(table, by, false)),
            ColumnValue::Null | ColumnValue::Constant => None,
        },
        Effect::Rewrite { table, by } if now.in_use(table) => Some(rewrite(table, by, true)),
        Effect::Refresh { view } if now.in_use(view) => Some(Violation::new(
            format!("{view} cannot be read while it is computed"),
            "its readers wait until COMMIT",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY, which requires a unique index on it",
        )),
        Effect::Write { table, command, all_rows: true } if now.in_use(table) => {
            Some(Violation::new(
                format!("{command} without WHERE writes every row of {table}"),
                "each row is locked until COMMIT, and the table grows by as many dead rows",
                "write in batches with exec --write, or compute the value when it is read",
            ))
        }
        _ => None,
    }
}

fn rewrite(table: &RelationName, by: &str, is_certain: bool) -> Violation {
    let (verb, unless) = if is_certain {
        ("rewrites", "")
    } else {
        ("may rewrite", " (unless the function is declared STABLE or IMMUTABLE)")
    };
    Violation::new(
        format!("{by} {verb} every row of {table}{unless}"),
        "the table cannot be read or written meanwhile",
        "add the column without a default, set the default in a second statement, and fill existing rows in batches",
    )
}
