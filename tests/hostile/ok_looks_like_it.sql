-- harmless
-- COMMIT;
/* ROLLBACK; /* nested */ */
CREATE TABLE "commit" ("begin" text DEFAULT 'COMMIT; ROLLBACK;');
INSERT INTO "commit" VALUES (E'it\'s; COMMIT;'), ($x$ $$; COMMIT; $x$), (U&'d\0061ta; ABORT');
