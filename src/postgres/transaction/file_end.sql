DO $$
DECLARE
    constraint_name text;
BEGIN
    FOR constraint_name IN
        SELECT pg_catalog.format('%I.%I', n.nspname, k.conname)
        FROM pg_catalog.pg_namespace n
        JOIN pg_catalog.pg_depend d
            ON d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid
            AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        JOIN pg_catalog.pg_constraint k ON k.conrelid = d.objid AND {which}
        WHERE n.nspname = pg_catalog.current_schema()
    LOOP
        EXECUTE 'SET CONSTRAINTS ' || constraint_name || ' {mode}';
    END LOOP;
END
$$
