-- refused by the guard
DO $$ BEGIN
    CREATE FUNCTION tenant_globex.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
END $$;
