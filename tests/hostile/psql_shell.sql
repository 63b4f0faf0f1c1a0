-- refused at load
SELECT 1;
\! touch /tmp/hostile

