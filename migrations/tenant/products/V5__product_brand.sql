-- NULL means that the brand is not known.
ALTER TABLE products ADD COLUMN brand text;
CREATE INDEX products_brand_idx ON products (brand) WHERE brand IS NOT NULL;
