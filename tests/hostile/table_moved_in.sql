-- refused by the guard
ALTER TABLE rates SET SCHEMA tenant_acme;
