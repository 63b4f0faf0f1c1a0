-- refused by the server
DO $$ BEGIN
    CREATE TABLE a (id int); COMMIT;
END $$;
