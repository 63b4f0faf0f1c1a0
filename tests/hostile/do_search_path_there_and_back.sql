-- refused by the guard
DO $$ BEGIN
    PERFORM set_config('search_path', 'public', true); CREATE TABLE x (id int); PERFORM set_config('search_path', 'tenant_acme, public', true);
END $$;
