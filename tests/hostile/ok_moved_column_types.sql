-- harmless
CREATE TABLE a (id int, m mood DEFAULT 'good');
INSERT INTO a VALUES (1);
ALTER TABLE a ALTER id TYPE bigint, ALTER m TYPE text USING m::text;
CREATE INDEX ON a (id);
CLUSTER a USING a_id_idx;
