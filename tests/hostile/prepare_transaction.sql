-- refused at load
CREATE TABLE a (id int);
PREPARE TRANSACTION 'hostile';
