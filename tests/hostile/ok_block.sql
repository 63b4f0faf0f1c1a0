-- harmless
DO $$ BEGIN
    CREATE TABLE a (id int); INSERT INTO a SELECT id FROM public.rates; ALTER TABLE a ADD COLUMN b text; CREATE TYPE m AS ENUM ('x'); CREATE DOMAIN d AS int;
END $$;
