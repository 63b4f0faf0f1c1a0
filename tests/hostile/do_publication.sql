-- refused by the guard
DO $$ BEGIN
    CREATE PUBLICATION hostile_pub;
END $$;
