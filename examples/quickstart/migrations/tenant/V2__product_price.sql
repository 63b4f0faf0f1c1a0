-- NULL means that the price is not known yet.
ALTER TABLE products ADD COLUMN price numeric(12, 2) CHECK (price >= 0);
