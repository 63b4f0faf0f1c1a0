-- refused at load
SELECT pg_catalog.set_config('search_path', 'public', true);
DROP TABLE plans;
