-- refused by the guard
DO $$ BEGIN
    ALTER ROLE hostile_reader SET search_path = tenant_globex;
END $$;
