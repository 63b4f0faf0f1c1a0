-- Reports read all prices of a period.
CREATE INDEX price_history_recorded_at_idx ON price_history (recorded_at);
