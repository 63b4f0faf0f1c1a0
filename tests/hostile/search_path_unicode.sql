-- refused at load
SET U&"search\005fpath" TO public;
