-- The progress of scripts that run without a transaction, so that a rerun continues after the last
-- finished statement. A row exists from the script's first statement until its history row.
CREATE TABLE unfinished_script (
    schema_oid oid NOT NULL,
    version bigint NOT NULL,
    schema_name text NOT NULL,
    script text NOT NULL,
    finished_text text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by text NOT NULL DEFAULT current_user,
    -- The statement that builds an index concurrently, until it has failed or is finished: only such a
    -- statement explains an invalid index of that name.
    unanswered text,
    PRIMARY KEY (schema_oid, version)
);
