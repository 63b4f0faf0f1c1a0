-- harmless
CREATE TABLE a (id serial PRIMARY KEY, t text);
CREATE TYPE m AS ENUM ('x');
DROP TYPE m;
DROP TABLE a;
CREATE TABLE a (id int);
