-- Plans a query with pg_catalog as its only path and runs it with a schema as the path. Plans that
-- scan whole catalogs are disabled, and so is every setting that changes how values are printed.
SAVEPOINT pricesync_relative;
SET LOCAL search_path TO pg_catalog;
SET LOCAL statement_timeout TO 0;
SET LOCAL enable_seqscan TO off;
SET LOCAL enable_hashjoin TO off;
SET LOCAL enable_mergejoin TO off;
SET LOCAL jit TO off;
SET LOCAL row_security TO off;
SET LOCAL quote_all_identifiers TO off;
SET LOCAL TimeZone TO 'UTC';
SET LOCAL DateStyle TO 'ISO';
SET LOCAL IntervalStyle TO 'postgres';
SET LOCAL extra_float_digits TO 1;
SET LOCAL bytea_output TO 'hex';
DECLARE pricesync_relative NO SCROLL CURSOR FOR {query};
SET LOCAL search_path TO {schema};
FETCH ALL FROM pricesync_relative;
ROLLBACK TO SAVEPOINT pricesync_relative;
RELEASE SAVEPOINT pricesync_relative
