-- refused at load
\i /etc/passwd

