-- What the history of each schema says, so that one query answers for the whole fleet. A row
-- is written in the transaction that changes the history, and is believed only while the
-- schema, the history table and its file are the same ones, and while the row is the very one
-- that that transaction wrote: xmin is the transaction that wrote a row, so a row that was
-- edited or restored from a dump says another number there than in written_by.
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
