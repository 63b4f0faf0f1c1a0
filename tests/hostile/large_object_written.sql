-- refused by the guard
DO $$ BEGIN
    PERFORM lo_put(4711, 0, 'changed');
END $$;
