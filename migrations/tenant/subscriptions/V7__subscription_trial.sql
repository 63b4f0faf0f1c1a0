-- How long a trial lasts. The default is set apart from the column: on some servers adding
-- a column with a default costs time in proportion to everything in the database.
ALTER TABLE subscriptions ADD COLUMN trial_days integer;
ALTER TABLE subscriptions ALTER COLUMN trial_days SET DEFAULT 14;
ALTER TABLE subscriptions ADD CONSTRAINT subscriptions_trial_days_sane CHECK (trial_days BETWEEN 0 AND 365);
