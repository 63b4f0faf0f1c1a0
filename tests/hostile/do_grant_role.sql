-- refused by the guard
DO $$ BEGIN
    GRANT pg_read_all_data TO hostile_reader;
END $$;
