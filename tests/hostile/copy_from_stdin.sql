-- refused at load
CREATE TABLE a (id int);
COPY a FROM STDIN;
1
\.
COMMIT;
