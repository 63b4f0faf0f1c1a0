-- The length of a trial. The default is set separately: on some servers, adding a column with a
-- default takes time in proportion to the size of the whole catalog.
ALTER TABLE subscriptions ADD COLUMN trial_days integer;
ALTER TABLE subscriptions ALTER COLUMN trial_days SET DEFAULT 14;
ALTER TABLE subscriptions ADD CONSTRAINT subscriptions_trial_days_sane CHECK (trial_days BETWEEN 0 AND 365);
