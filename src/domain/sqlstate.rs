//! The SQLSTATE codes that the program acts on, named as in appendix A of PostgreSQL's manual.

#![allow(missing_docs, reason = "the names are those of the manual")]

/// The client or the server ended the connection; the first two characters of the whole class.
pub const CONNECTION_EXCEPTION_CLASS: &str = "08";

pub const DIVISION_BY_ZERO: &str = "22012";
pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
pub const NOT_NULL_VIOLATION: &str = "23502";
pub const FOREIGN_KEY_VIOLATION: &str = "23503";
pub const UNIQUE_VIOLATION: &str = "23505";
pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: &str = "25P03";
pub const INVALID_AUTHORIZATION_SPECIFICATION: &str = "28000";
pub const INVALID_PASSWORD: &str = "28P01";
/// The database does not exist.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// The schema does not exist.
pub const INVALID_SCHEMA_NAME: &str = "3F000";
pub const SERIALIZATION_FAILURE: &str = "40001";
pub const DEADLOCK_DETECTED: &str = "40P01";
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub const SYNTAX_ERROR: &str = "42601";
pub const UNDEFINED_COLUMN: &str = "42703";
/// A type, role, extension or other object without a code of its own does not exist.
pub const UNDEFINED_OBJECT: &str = "42704";
pub const UNDEFINED_FUNCTION: &str = "42883";
pub const UNDEFINED_TABLE: &str = "42P01";
pub const DUPLICATE_DATABASE: &str = "42P04";
pub const DUPLICATE_SCHEMA: &str = "42P06";
pub const DISK_FULL: &str = "53100";
/// Also a full lock table.
pub const OUT_OF_MEMORY: &str = "53200";
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// Also a lock timeout.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// An enum value is used in the transaction that adds it.
pub const UNSAFE_NEW_ENUM_VALUE_USAGE: &str = "55P04";
/// Also a statement timeout.
pub const QUERY_CANCELED: &str = "57014";
pub const ADMIN_SHUTDOWN: &str = "57P01";
pub const CRASH_SHUTDOWN: &str = "57P02";
/// The server is starting or stopping.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
pub const INTERNAL_ERROR: &str = "XX000";

/// Returns whether the same transaction may succeed when it is retried: another session held a lock.
pub fn is_contention(code: &str) -> bool {
    matches!(code, LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED | SERIALIZATION_FAILURE)
}

/// Returns whether a table, or the schema it is looked up in, does not exist.
pub fn is_missing_table(code: &str) -> bool {
    matches!(code, UNDEFINED_TABLE | INVALID_SCHEMA_NAME)
}

/// Returns whether the server stops or starts, and ended or refused the connection for that.
pub fn is_shutdown(code: &str) -> bool {
    matches!(code, ADMIN_SHUTDOWN | CRASH_SHUTDOWN | CANNOT_CONNECT_NOW)
}

/// Returns whether the connection is lost.
pub fn is_connection_lost(code: &str) -> bool {
    code.starts_with(CONNECTION_EXCEPTION_CLASS)
        || is_shutdown(code)
        || matches!(code, IDLE_SESSION_TIMEOUT | IDLE_IN_TRANSACTION_SESSION_TIMEOUT)
}
