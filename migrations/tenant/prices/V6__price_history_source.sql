-- Prices say where they come from. Two steps: a default inside ADD COLUMN costs far more in a large fleet
-- and would claim to know the source of the old rows.
ALTER TABLE price_history ADD COLUMN source text;
ALTER TABLE price_history ALTER COLUMN source SET DEFAULT 'manual';
