-- refused by the guard
DO $$ BEGIN
    EXECUTE 'DELETE FROM pricesync.schema_state';
END $$;
