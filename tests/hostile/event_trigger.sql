-- refused at load
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER hostile_watch ON ddl_command_end EXECUTE FUNCTION f();
