-- The ledger: the history of each schema, so that one query reads the state of all. A row is written in
-- the transaction that changes the history. It is trusted only if schema, history table and the
-- table's file are the same, and if written_by equals xmin, which is the transaction that wrote the
-- row: the two differ in a row that was edited or restored from a dump.
CREATE TABLE schema_state (
    schema_name text PRIMARY KEY,
    schema_oid oid NOT NULL,
    history_oid oid NOT NULL,
    history_file oid NOT NULL,
    written_by xid8 NOT NULL,
    version bigint,
    applied integer NOT NULL,
    digest text NOT NULL,
    changed_at timestamptz NOT NULL
);
