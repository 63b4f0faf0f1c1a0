-- refused at load
SELECT '\'; COMMIT; --';
