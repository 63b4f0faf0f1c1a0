-- The rows from before the check are checked too.
ALTER TABLE subscriptions VALIDATE CONSTRAINT subscriptions_target_price_check;
