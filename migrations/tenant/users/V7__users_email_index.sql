-- Signing in by email, in any case; several users may share an address.
CREATE INDEX users_email_lower_idx ON users (lower(email)) WHERE email <> '';
