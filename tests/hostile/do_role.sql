-- refused by the guard
DO $$ BEGIN
    PERFORM set_config('role', 'hostile_reader', true);
END $$;
