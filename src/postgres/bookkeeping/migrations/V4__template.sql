-- The script that fills a tenant's schema as the files would, or why there is none. The key is the digest of
-- everything on which the script depends; the seal is the digest of the row, so that an edited row is
-- not used.
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
