-- refused by the server
DO $$ BEGIN
    EXECUTE 'SAVE' || 'POINT s';
END $$;
