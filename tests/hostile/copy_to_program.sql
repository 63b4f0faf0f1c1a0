-- refused at load
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null';
