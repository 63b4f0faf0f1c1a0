-- refused at load
CREATE EXTENSION IF NOT EXISTS citext;
