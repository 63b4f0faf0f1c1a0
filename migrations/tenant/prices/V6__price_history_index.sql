-- Supports reading the prices of a product, newest first.
CREATE INDEX price_history_curve_idx ON price_history (product_id, valid_from DESC);
