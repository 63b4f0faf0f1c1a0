-- refused by the guard
DO $$ BEGIN
    ALTER PUBLICATION feed ADD TABLE tenant_globex.treasure;
END $$;
