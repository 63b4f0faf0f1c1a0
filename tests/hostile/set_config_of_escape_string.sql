-- refused by the guard
SELECT set_config(E'search\x5fpath', 'public', true);
CREATE TABLE x (id int);
SELECT set_config(E'search\x5fpath', 'tenant_acme,public', true);
