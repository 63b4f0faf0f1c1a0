-- Products have a brand; those from before have none.
ALTER TABLE products ADD COLUMN brand text;
CREATE INDEX products_brand_idx ON products (brand) WHERE brand IS NOT NULL;
