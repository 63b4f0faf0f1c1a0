-- refused at load
SET standard_conforming_strings = off;
SELECT '\'; DROP TABLE plans; --';
