-- refused by the guard
CREATE TABLE k (rate int REFERENCES rates (id));
DROP TRIGGER watch ON rates;
