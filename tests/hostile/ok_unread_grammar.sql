-- harmless
CREATE TABLE a (id int); SELECT ALL FROM a;
