-- refused at load
SELECT E'it\'s'; COMMIT; SELECT E'\'';
