-- The statement that builds an index concurrently, from before it is sent until the server has
-- answered it: only of such a one may an index of that name be what an earlier attempt built.
ALTER TABLE unfinished_script ADD COLUMN unanswered text;
