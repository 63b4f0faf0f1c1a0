-- The statement that builds an index concurrently, from before it is sent until it has failed or
-- is noted as finished: only of such a one may an index of that name be what an earlier attempt built.
ALTER TABLE unfinished_script ADD COLUMN unanswered text;
