-- refused at load
SELECT $a$ $b$ ; $a$; COMMIT; SELECT $b$ $b$;
