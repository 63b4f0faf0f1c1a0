-- One script that makes a tenant's schema as the files one by one would, or why there is none.
-- The key is a digest of everything that the script was made from; the seal is one of the
-- row, so that a row which somebody edited is not used.
CREATE TABLE template (
    key text PRIMARY KEY,
    sql text,
    fingerprint text,
    reason text,
    seal text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT current_user,
    CHECK ((reason IS NULL) = (sql IS NOT NULL AND fingerprint IS NOT NULL))
);
