-- harmless
CREATE TABLE a (id int);
GRANT SELECT ON a TO hostile_reader;
GRANT SELECT (id) ON TABLE a TO PUBLIC;
DO $$ BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO hostile_reader', current_schema());
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO hostile_reader', current_schema());
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO hostile_reader', current_schema());
END $$;
