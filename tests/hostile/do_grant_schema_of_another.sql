-- refused by the guard
DO $$ BEGIN
    EXECUTE 'GRANT USAGE ON SCHEMA tenant_globex TO hostile_reader';
END $$;
