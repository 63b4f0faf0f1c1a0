DO $privileges$
DECLARE statement text;
BEGIN
    -- The default privileges of the restoring role (manual, ALTER DEFAULT PRIVILEGES) were applied to the new
    -- objects, and are not the privileges that were backed up.
    FOR statement IN
        WITH given AS (
            SELECT d.defaclobjtype AS kind, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)::text) END AS grantee
            FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) x
            WHERE d.defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AND d.defaclnamespace = 0 AND x.grantee <> d.defaclrole
        ), types AS (
            SELECT t.oid::pg_catalog.regtype AS name FROM pg_catalog.pg_type t WHERE t.typnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = pg_catalog.current_schema()) AND t.typelem = 0
                AND (t.typtype IN ('d', 'e', 'r') OR t.typtype = 'c' AND (SELECT relkind FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid) = 'c')
        ), statements AS (
            SELECT 1 AS step, pg_catalog.format('REVOKE ALL ON ALL %s IN SCHEMA %I FROM %s', word, pg_catalog.current_schema(), grantee) AS text
            FROM given JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'ROUTINES')) w (which, word) ON which = kind::text
            UNION ALL SELECT 1, pg_catalog.format('REVOKE ALL ON TYPE %s FROM %s', name, grantee) FROM given, types WHERE kind = 'T'
            UNION ALL SELECT 2, pg_catalog.format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA %I TO PUBLIC', pg_catalog.current_schema()) FROM pg_catalog.pg_default_acl
            WHERE defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AND defaclnamespace = 0 AND defaclobjtype = 'f'
            UNION ALL SELECT 2, pg_catalog.format('GRANT USAGE ON TYPE %s TO PUBLIC', name) FROM pg_catalog.pg_default_acl, types
            WHERE defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AND defaclnamespace = 0 AND defaclobjtype = 'T'
        )
        SELECT text FROM statements ORDER BY step
    LOOP
        EXECUTE statement;
    END LOOP;
END $privileges$
