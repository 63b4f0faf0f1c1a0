-- refused at load
DO $$ BEGIN NULL; END $$;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
