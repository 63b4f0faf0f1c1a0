-- harmless
CREATE TABLE a (id int);
NOTIFY hostile_channel, 'done';
