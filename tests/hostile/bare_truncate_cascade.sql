-- refused by the guard
TRUNCATE rates CASCADE;
