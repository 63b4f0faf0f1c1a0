-- A price that is not known yet is no price.
ALTER TABLE products ADD COLUMN price numeric(12, 2) CHECK (price >= 0);
