-- The run log: who migrated what and when. It decides only which schemas --retry-failed selects, so it may
-- be deleted.
CREATE TABLE run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    started_by text NOT NULL,
    command text NOT NULL,
    files text NOT NULL,
    schemas integer NOT NULL,
    up_to_date integer NOT NULL DEFAULT 0,
    interrupted boolean NOT NULL DEFAULT false
);

-- The outcome of each schema; those that were up to date are only counted.
CREATE TABLE run_item (
    run_id bigint NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    schema_name text NOT NULL,
    tenant text NOT NULL,
    outcome text NOT NULL,
    scripts integer NOT NULL DEFAULT 0,
    took_ms bigint,
    reason text,
    finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, schema_name)
);

-- Schemas whose last run failed, until one succeeds.
CREATE TABLE schema_failure (
    schema_name text PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sqlstate text,
    failure text NOT NULL,
    message text NOT NULL
);
