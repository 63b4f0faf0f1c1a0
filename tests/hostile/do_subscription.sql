-- refused by the guard
DO $$ BEGIN
    CREATE SUBSCRIPTION hostile_sub CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);
END $$;
