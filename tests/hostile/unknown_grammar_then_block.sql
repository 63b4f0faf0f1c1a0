-- refused by the server
FROBNICATE TABLE a;
SELECT 1;
