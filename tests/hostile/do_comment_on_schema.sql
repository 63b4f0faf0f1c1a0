-- refused by the guard
DO $$ BEGIN
    COMMENT ON SCHEMA public IS 'ours';
END $$;
