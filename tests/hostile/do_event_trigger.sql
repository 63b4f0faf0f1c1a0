-- refused by the guard
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
DO $$ BEGIN
    CREATE EVENT TRIGGER hostile_watch ON ddl_command_end EXECUTE FUNCTION f();
END $$;
