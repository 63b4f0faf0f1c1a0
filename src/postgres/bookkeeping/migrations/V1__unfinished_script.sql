-- How far a script that runs without a transaction has come in a schema, so that a rerun
-- goes on behind its last finished statement. A row lives from the script's first
-- statement to its history row.
CREATE TABLE unfinished_script (
    schema_oid oid NOT NULL,
    version bigint NOT NULL,
    schema_name text NOT NULL,
    script text NOT NULL,
    finished_text text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by text NOT NULL DEFAULT current_user,
    -- The statement that builds an index concurrently, from before it is sent until it has failed or
    -- is recorded as finished: only such a statement explains an invalid index of that name.
    unanswered text,
    PRIMARY KEY (schema_oid, version)
);
