-- refused by the guard
DO $$ BEGIN
    COMMENT ON ROLE hostile_reader IS 'ours';
END $$;
