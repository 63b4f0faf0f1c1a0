-- harmless
CREATE TABLE a (rate int REFERENCES public.rates (id));
INSERT INTO a VALUES (1), (2);
ALTER TABLE a DROP CONSTRAINT a_rate_fkey;
ALTER TABLE a ADD FOREIGN KEY (rate) REFERENCES rates;
