-- refused at load
CREATE TABLE a (x text);
INSERT INTO a SELECT set_config('search_path', 'public', true);
