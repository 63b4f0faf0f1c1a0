-- Products say who makes them; unknown for those that exist.
ALTER TABLE products ADD COLUMN brand text;
