DECLARE routine record;
BEGIN
    FOR routine IN WITH proc AS (
        SELECT p.* FROM pg_proc p WHERE p.pronamespace = quote_ident({schema})::regnamespace
    ), own_path AS (
{own_path}    ) SELECT oid, settings FROM own_path
    LOOP
        EXECUTE 'ALTER ROUTINE ' || routine.oid::regprocedure || format(routine.settings, {schema});
    END LOOP;
END
