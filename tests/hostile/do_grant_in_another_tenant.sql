-- refused by the guard
DO $$ BEGIN
    EXECUTE 'GRANT ALL ON tenant_globex.treasure TO PUBLIC';
END $$;
