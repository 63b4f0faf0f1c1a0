-- refused by the guard
DO $$ BEGIN
    EXECUTE 'DROP ' || 'TABLE plans';
END $$;
