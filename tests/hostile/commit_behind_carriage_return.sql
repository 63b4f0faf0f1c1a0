-- refused at load
SELECT 1; -- a comment ends hereCOMMIT;
