-- refused at load
SAVEPOINT s;
CREATE TABLE a (id int);
ROLLBACK TO SAVEPOINT s;
