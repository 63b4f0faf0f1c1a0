-- refused at load
\connect postgres
CREATE TABLE a (id int);
