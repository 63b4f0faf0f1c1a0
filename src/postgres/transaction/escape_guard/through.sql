-- Lists through what the transaction may have changed relations outside the schema: one row of the
-- relation's oid, a description, and whether it is an event trigger. Objects of the schema are named
-- without it, so that the lines of several tenants are equal. A function counts if its text contains the
-- relation's name, or the name of such a function, up to four calls deep.
WITH RECURSIVE touched AS (
    SELECT c.oid, lower(c.relname::text) AS name FROM pg_class c WHERE c.oid = ANY ('{{oids}}'::oid[])
), functions AS (
    SELECT p.oid, lower(p.proname::text) AS name, p.prorettype,
        regexp_split_to_array(lower(p.prosrc), '[^[:alnum:]_$]+'::text) AS words,
        CASE WHEN n.nspname = {schema} THEN '' ELSE quote_ident(n.nspname::text) || '.' END || quote_ident(p.proname::text) AS shown
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pricesync')
), writers (touched, oid, depth) AS (
    SELECT t.oid, f.oid, 1 FROM touched t JOIN functions f ON t.name = ANY (f.words)
    UNION
    SELECT w.touched, caller.oid, w.depth + 1 FROM writers w JOIN functions called ON called.oid = w.oid
        JOIN functions caller ON called.name = ANY (caller.words) WHERE w.depth < 4
), written AS (
    SELECT c.oid, CASE WHEN n.nspname = {schema} THEN '' ELSE quote_ident(n.nspname::text) || '.' END || quote_ident(c.relname::text) AS shown
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid IN (SELECT l.relation FROM pg_locks l WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid()
        AND l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
)
SELECT DISTINCT w.touched, 'event trigger ' || quote_ident(e.evtname::text) || ' (function ' || f.shown || ')', true
FROM writers w JOIN functions f ON f.oid = w.oid JOIN pg_event_trigger e ON e.evtfoid = f.oid WHERE e.evtenabled <> 'D'
UNION
SELECT w.touched, 'trigger ' || quote_ident(t.tgname::text) || ' on ' || c.shown || ' (function ' || f.shown || ')', false
FROM writers w JOIN functions f ON f.oid = w.oid JOIN pg_trigger t ON t.tgfoid = f.oid JOIN written c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION
SELECT t.oid, CASE WHEN r.rulename = '_RETURN' THEN 'view ' ELSE 'rule ' || quote_ident(r.rulename::text) || ' on ' END || c.shown, false
FROM touched t JOIN pg_depend d ON d.refclassid = 1259 AND d.refobjid = t.oid AND d.classid = 2618
    JOIN pg_rewrite r ON r.oid = d.objid JOIN written c ON c.oid = r.ev_class WHERE c.oid <> t.oid
UNION
SELECT t.oid, 'the default of ' || c.shown || '.' || quote_ident(a.attname::text), false
FROM touched t JOIN pg_depend d ON d.refclassid = 1259 AND d.refobjid = t.oid AND d.classid = 2604
    JOIN pg_attrdef f ON f.oid = d.objid JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum JOIN written c ON c.oid = a.attrelid
WHERE c.oid <> t.oid AND d.deptype = 'n'
UNION
SELECT t.oid, 'foreign key ' || quote_ident(k.conname::text) || ' to ' || c.shown, false
FROM touched t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f' JOIN written c ON c.oid = k.confrelid
WHERE c.oid <> t.oid
ORDER BY 1, 2
