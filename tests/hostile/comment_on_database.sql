-- refused at load
COMMENT ON DATABASE postgres IS 'ours now';
