-- Which language a user reads; none means the tenant's own.
ALTER TABLE users ADD COLUMN locale varchar(16);
