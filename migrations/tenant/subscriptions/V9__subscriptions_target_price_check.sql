-- A target price is an amount; rows that exist are checked by the next file, which locks less.
ALTER TABLE subscriptions
    ADD CONSTRAINT subscriptions_target_price_check CHECK (target_price >= 0) NOT VALID;
