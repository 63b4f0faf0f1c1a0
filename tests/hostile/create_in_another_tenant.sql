-- refused at load
CREATE TABLE U&"tenant\005fglobex".x (id int);
