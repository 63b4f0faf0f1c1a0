-- The language of a user; NULL means the language of the tenant.
ALTER TABLE users ADD COLUMN locale varchar(16);
