-- Lists the columns of the schema's tables and populated materialized views: quoted name of the
-- table, whether row-level security hides rows from its owner, whether it is a view, column, and its
-- type if that is a date or a time with the fraction of a second. Run through relative_to.sql.
SELECT quote_ident(c.relname), c.relrowsecurity AND c.relforcerowsecurity, c.relkind = 'm', a.attname,
    CASE WHEN a.atttypid = 'date'::regtype OR a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype)
        AND (a.atttypmod = -1 OR a.atttypmod >= 3) THEN format_type(a.atttypid, a.atttypmod) END
FROM pg_namespace n
JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.objid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE n.nspname = {schema} AND c.relname <> {history} AND c.relkind IN ('r', 'm') AND c.relispopulated
ORDER BY a.attnum
