-- Finishes the migration of a schema, or of a group of schemas with equal histories: returns true if the
-- guard's full question is required, otherwise records the histories in the ledger and returns false.
-- It writes after the last check, so a lock on a table of pricesync that the guard finds is never its own.
--
-- `listed` are the relations of `guard.allow_writes`, as quoted names; `writable.sql` is filled in.
--
-- It is a function because its plans are cached from one schema to the next. The text between the two
-- marks is the only source of the quick question: `quick_question` turns it into an expression for use
-- without the ledger. The steps are ordered by cost; the query after THEN IF runs only if the condition
-- before it holds. A catalog row was written by the transaction if it is as young and its writer is in
-- progress; a younger row may be that of another session, committed since.
CREATE FUNCTION finish(
    own_oids oid[], own_names text[], own_histories oid[],
    now_version bigint, now_applied integer, now_digest text, is_wide boolean, listed text[]
)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    own_xact CONSTANT bigint := pg_current_xact_id()::text::bigint;
    own_age CONSTANT integer := age(pg_current_xact_id()::xid);
    public_oid CONSTANT oid := to_regnamespace('public');
    own_prefixes CONSTANT text[] := ARRAY(SELECT quote_ident(own_name) || '.' FROM unnest(own_names) own_name);
    -- The files of a group only define: a write lock on any other table than the histories means that a
    -- file changed another schema of the group.
    is_group CONSTANT boolean := cardinality(own_oids) > 1;
    group_tables CONSTANT oid[] := CASE WHEN is_group THEN own_histories || ARRAY(SELECT indexrelid FROM pg_index WHERE indrelid = ANY (own_histories)) END;
BEGIN
    -- quick question
    IF
        pg_stat_get_xact_tuples_inserted(1255) + pg_stat_get_xact_tuples_updated(1255)
        + pg_stat_get_xact_tuples_inserted(826) + pg_stat_get_xact_tuples_updated(826)
        + pg_stat_get_xact_tuples_inserted(1213) + pg_stat_get_xact_tuples_updated(1213)
        + pg_stat_get_xact_tuples_inserted(1262) + pg_stat_get_xact_tuples_updated(1262)
        + pg_stat_get_xact_tuples_inserted(1417) + pg_stat_get_xact_tuples_updated(1417)
        + pg_stat_get_xact_tuples_inserted(2328) + pg_stat_get_xact_tuples_updated(2328)
        + pg_stat_get_xact_tuples_inserted(2601) + pg_stat_get_xact_tuples_updated(2601)
        + pg_stat_get_xact_tuples_inserted(2605) + pg_stat_get_xact_tuples_updated(2605)
        + pg_stat_get_xact_tuples_inserted(2607) + pg_stat_get_xact_tuples_updated(2607)
        + pg_stat_get_xact_tuples_inserted(2612) + pg_stat_get_xact_tuples_updated(2612)
        + pg_stat_get_xact_tuples_inserted(2615) + pg_stat_get_xact_tuples_updated(2615)
        + pg_stat_get_xact_tuples_inserted(2616) + pg_stat_get_xact_tuples_updated(2616)
        + pg_stat_get_xact_tuples_inserted(2617) + pg_stat_get_xact_tuples_updated(2617)
        + pg_stat_get_xact_tuples_inserted(2753) + pg_stat_get_xact_tuples_updated(2753)
        + pg_stat_get_xact_tuples_inserted(2995) + pg_stat_get_xact_tuples_updated(2995)
        + pg_stat_get_xact_tuples_inserted(3079) + pg_stat_get_xact_tuples_updated(3079)
        + pg_stat_get_xact_tuples_inserted(3381) + pg_stat_get_xact_tuples_updated(3381)
        + pg_stat_get_xact_tuples_inserted(3456) + pg_stat_get_xact_tuples_updated(3456)
        + pg_stat_get_xact_tuples_inserted(3466) + pg_stat_get_xact_tuples_updated(3466)
        + pg_stat_get_xact_tuples_inserted(3576) + pg_stat_get_xact_tuples_updated(3576)
        + pg_stat_get_xact_tuples_inserted(3600) + pg_stat_get_xact_tuples_updated(3600)
        + pg_stat_get_xact_tuples_inserted(3601) + pg_stat_get_xact_tuples_updated(3601)
        + pg_stat_get_xact_tuples_inserted(3602) + pg_stat_get_xact_tuples_updated(3602)
        + pg_stat_get_xact_tuples_inserted(3764) + pg_stat_get_xact_tuples_updated(3764)
        + pg_stat_get_xact_tuples_inserted(6100) + pg_stat_get_xact_tuples_updated(6100)
        + pg_stat_get_xact_tuples_inserted(6104) + pg_stat_get_xact_tuples_updated(6104)
        + pg_stat_get_xact_tuples_inserted(6106) + pg_stat_get_xact_tuples_updated(6106)
        + pg_stat_get_xact_tuples_inserted(6237) + pg_stat_get_xact_tuples_updated(6237)
        + pg_stat_get_xact_tuples_inserted(6243) + pg_stat_get_xact_tuples_updated(6243)
        + pg_stat_get_xact_tuples_updated(1247) + pg_stat_get_xact_tuples_updated(2608) > 0
        OR current_setting('track_counts') = 'off'
    THEN RETURN true; END IF;
    -- First the names of locked relations, without a join. The oids of catalogs are below 10000.
    IF EXISTS (
        SELECT FROM pg_lock_status() l WHERE l.pid = pg_backend_pid() AND CASE l.locktype
            WHEN 'relation' THEN l.mode <> 'AccessShareLock' AND (l.relation >= 10000 OR l.relation IN (1260, 1261, 1262, 2613, 2964))
                AND (NOT l.relation::regclass::text ^@ ANY (own_prefixes) OR is_group AND l.mode = 'RowExclusiveLock' AND l.relation <> ALL (group_tables))
                AND NOT l.relation::regclass::text ^@ 'pg_toast.'
            WHEN 'object' THEN l.classid = 2615 AND l.objid <> 99 AND l.objid <> ALL (own_oids)
                OR l.classid NOT IN (2615, 2604, 2606, 2618, 2620, 3256) AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
            ELSE false END
    ) THEN IF EXISTS (
        SELECT FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = pg_backend_pid() AND (l.locktype = 'relation' AND (
            l.mode NOT IN ('AccessShareLock', 'RowShareLock')
            AND (c.oid IS NULL OR c.relnamespace NOT IN (11, 99) AND c.relnamespace <> ALL (own_oids) OR c.oid IN (1260, 1261, 1262, 2613, 2964))
            OR is_group AND l.mode = 'RowExclusiveLock' AND c.relnamespace = ANY (own_oids) AND c.oid <> ALL (group_tables)
            OR l.mode = 'RowShareLock' AND c.relkind IN ('r', 'p') AND c.relnamespace NOT IN (11, 99) AND c.relnamespace <> ALL (own_oids) AND NOT EXISTS (
                SELECT FROM pg_locks w JOIN pg_constraint f
                ON f.conrelid = w.relation AND f.confrelid = l.relation OR f.conrelid = l.relation AND f.confrelid = w.relation
                WHERE w.locktype = 'relation' AND w.pid = l.pid AND f.contype = 'f'))
            AND NOT (l.mode IN ('RowShareLock', 'RowExclusiveLock') AND {writable})
        OR l.locktype = 'object' AND (l.classid = 2615 AND l.objid <> 99 AND l.objid <> ALL (own_oids)
            OR l.classid NOT IN (2615, 2604, 2606, 2618, 2620, 3256)
            AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')))
    ) THEN RETURN true; END IF; END IF;
    IF
        pg_stat_get_xact_tuples_inserted(1247) > 0
    THEN IF EXISTS (
        SELECT FROM pg_depend d WHERE d.refclassid = 2615 AND d.refobjid = public_oid AND d.classid <> 1259
        AND CASE WHEN age(d.xmin) <= own_age THEN pg_xact_status((own_xact + own_age - age(d.xmin))::text::xid8) = 'in progress' ELSE false END
    ) THEN RETURN true; END IF; END IF;
    IF
        pg_stat_get_xact_tuples_updated(1259) > 0
    THEN IF EXISTS (
        SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE d.refclassid = 2615 AND d.refobjid = public_oid AND d.classid = 1259
        AND CASE WHEN age(c.xmin) <= own_age THEN pg_xact_status((own_xact + own_age - age(c.xmin))::text::xid8) = 'in progress' ELSE false END
    ) THEN RETURN true; END IF; END IF;
    -- Types and privileges may change in any schema without a lock. No index finds them, so they are checked
    -- only if code ran that pricesync cannot read.
    IF
        is_wide AND pg_stat_get_xact_tuples_updated(1259) > 0
    THEN IF EXISTS (
        SELECT FROM pg_class c WHERE c.relnamespace NOT IN (11, 99) AND c.relnamespace <> ALL (own_oids)
        AND CASE WHEN age(c.xmin) <= own_age THEN pg_xact_status((own_xact + own_age - age(c.xmin))::text::xid8) = 'in progress' ELSE false END
    ) THEN RETURN true; END IF; END IF;
    IF
        is_wide AND pg_stat_get_xact_tuples_inserted(1247) > 0
    THEN IF EXISTS (
        SELECT FROM pg_type t WHERE t.typnamespace NOT IN (11, 99) AND t.typnamespace <> ALL (own_oids)
        AND CASE WHEN age(t.xmin) <= own_age THEN pg_xact_status((own_xact + own_age - age(t.xmin))::text::xid8) = 'in progress' ELSE false END
    ) THEN RETURN true; END IF; END IF;
    -- end of the quick question
    INSERT INTO pricesync.schema_state AS s
        (schema_name, schema_oid, history_oid, history_file, written_by, version, applied, digest, changed_at)
    SELECT name, oid, history, pg_relation_filenode(history), pg_current_xact_id(), now_version, now_applied, now_digest, clock_timestamp()
    FROM unnest(own_names, own_oids, own_histories) AS o(name, oid, history)
    ON CONFLICT (schema_name) DO UPDATE SET schema_oid = EXCLUDED.schema_oid, history_oid = EXCLUDED.history_oid,
        history_file = EXCLUDED.history_file, written_by = EXCLUDED.written_by, version = EXCLUDED.version,
        applied = EXCLUDED.applied, digest = EXCLUDED.digest, changed_at = EXCLUDED.changed_at;
    RETURN false;
END
$$;
