-- refused at load
CREATE TABLE a (id int);
ROLLBACK;
