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

-- The end of a schema's transaction in one call, because a function's plans are kept and a
-- statement's are not. Returns whether what the transaction touched outside the schema has to
-- be looked at closely, and notes what its history says only where nothing has to.
CREATE FUNCTION leave(own oid, own_name text, history regclass, now_version bigint, now_applied integer, now_digest text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = pg_backend_pid() AND (l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
        AND (c.oid IS NULL OR c.relnamespace NOT IN (11, 99, own))
        OR l.locktype = 'object' AND (l.classid = 'pg_namespace'::regclass AND l.objid NOT IN (99, own)
        OR l.classid IN ('pg_proc'::regclass, 'pg_type'::regclass) AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock')))
    ) OR EXISTS (
        SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass
        AND d.refobjid = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'public')
        AND d.classid <> 'pg_class'::regclass AND age(d.xmin) <= age(pg_current_xact_id()::xid)
    ) OR pg_stat_get_xact_tuples_inserted('pg_proc'::regclass) + pg_stat_get_xact_tuples_updated('pg_proc'::regclass)
        + pg_stat_get_xact_tuples_updated('pg_type'::regclass) + pg_stat_get_xact_tuples_updated('pg_depend'::regclass) > 0
    OR current_setting('track_counts') = 'off' THEN
        RETURN true;
    END IF;
    INSERT INTO pricesync.schema_state AS s
        (schema_name, schema_oid, history_oid, history_file, written_by, version, applied, digest, changed_at)
    VALUES (own_name, own, history, pg_relation_filenode(history), pg_current_xact_id(), now_version, now_applied, now_digest, clock_timestamp())
    ON CONFLICT (schema_name) DO UPDATE SET schema_oid = EXCLUDED.schema_oid, history_oid = EXCLUDED.history_oid,
        history_file = EXCLUDED.history_file, written_by = EXCLUDED.written_by, version = EXCLUDED.version,
        applied = EXCLUDED.applied, digest = EXCLUDED.digest, changed_at = EXCLUDED.changed_at;
    RETURN false;
END
$$;
