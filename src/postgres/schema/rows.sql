-- Returns a query for each table, materialized view and sequence of a schema, except the history.
-- Each query returns one line: what it is, how many rows and a digest of them in no order, or the
-- place of the sequence. Run through relative_to.sql, as are the queries.
SELECT CASE c.relkind
    WHEN 'S' THEN format('SELECT %L || last_value || '' '' || is_called FROM %I.%I',
        'at ' || quote_ident(c.relname) || ' ', n.nspname, c.relname)
    ELSE format('SELECT %L || count(*) || '' '' || coalesce(md5(string_agg(md5(CAST(t.* AS text)), '''' ORDER BY md5(CAST(t.* AS text)))), '''') FROM ONLY %I.%I t',
        'rows ' || quote_ident(c.relname) || ' ', n.nspname, c.relname)
    END
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
WHERE n.nspname = {schema} AND c.relname <> {history} AND c.relkind IN ('r', 'm', 'S') AND c.relispopulated
