-- refused by the guard
DO $$ BEGIN
    GRANT CREATE ON SCHEMA public TO hostile_reader;
END $$;
