SET LOCAL extra_float_digits TO 1;
SET LOCAL IntervalStyle TO postgres;
INSERT INTO pricesync.trash (id, tenant_id, slug, name, schema_name, tenant, domains, hosts, tables, bytes)
SELECT {number}, t.id::text, coalesce(t.slug, t.schema_name), t.name, t.schema_name,
  (SELECT row_to_json(t) FROM {tenants} t WHERE t.{id_column} = {id}),
  {domains},
  (SELECT coalesce(array_agg(d.domain ORDER BY d.is_primary DESC, d.id), '{}') FROM {hosts} d WHERE d.tenant_id = t.id),
  {tables}, {bytes}
FROM {rows} t WHERE t.id = {id};
{search_path}{delete};
ALTER SCHEMA {schema} RENAME TO {trash_schema};
{forget}
