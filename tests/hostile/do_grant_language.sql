-- refused by the guard
DO $$ BEGIN
    REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
END $$;
