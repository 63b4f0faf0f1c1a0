//! URL parameters of other tools that share `DATABASE_URL`.

/// Parameters that are ignored with a warning. A name ending in `*` is a prefix.
const FOREIGN: &[&str] = &[
    // Prisma
    "schema",
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "statement_cache_size",
    "sslaccept",
    "sslidentity",
    // pgx, lib/pq, sqlx
    "pool_max_conns",
    "pool_min_conns",
    "pool_max_conn_*",
    "pool_health_check_period",
    "default_query_exec_mode",
    "statement_cache_capacity",
    "statement-cache-capacity",
    "description_cache_capacity",
    "search_path",
    "binary_parameters",
    // golang-migrate
    "x-*",
    // Rails
    "pool",
    "encoding",
    "prepared_statements",
    "schema_search_path",
    "reaping_frequency",
    "checkout_timeout",
    "advisory_locks",
    // SQLAlchemy, dj-database-url
    "pool_size",
    "pool_recycle",
    "pool_pre_ping",
    "max_overflow",
    "conn_max_age",
    "conn_health_checks",
    // JDBC, Npgsql, node-postgres
    "currentSchema",
    "prepareThreshold",
    "stringtype",
    "reWriteBatchedInserts",
    "pooling",
    "uselibpqcompat",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "query_timeout",
    // Supabase, Vercel
    "supa",
    "workaround",
];

/// Returns whether a parameter belongs to another tool and can be ignored.
pub(super) fn owns(name: &str) -> bool {
    FOREIGN.iter().any(|foreign| match foreign.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *foreign,
    })
}
