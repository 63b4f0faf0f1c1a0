-- refused at load
DELETE FROM ONLY "tenant_globex".treasure;
