-- refused by the guard
DO $$ BEGIN
    CREATE FOREIGN DATA WRAPPER hostile_wrapper; CREATE SERVER hostile_server FOREIGN DATA WRAPPER hostile_wrapper;
END $$;
