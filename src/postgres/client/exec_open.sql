-- Opens the transaction of exec. The idle timeout is off and keepalives are on because rows wait for
-- the tenant that decides which columns there are: a client that is gone is detected by its connection.
-- The query comes last, because after a query the transaction's mode cannot be changed.
BEGIN ISOLATION LEVEL READ COMMITTED {mode};
{reset}
SET LOCAL search_path TO {path};
SET LOCAL statement_timeout TO {statement_timeout};
SET LOCAL lock_timeout TO {lock_timeout};
SET LOCAL idle_in_transaction_session_timeout TO 0;
SET LOCAL tcp_keepalives_idle TO 60;
SET LOCAL tcp_keepalives_interval TO 10;
SET LOCAL tcp_keepalives_count TO 6;
SET LOCAL standard_conforming_strings TO on;
SELECT pg_catalog.pg_backend_pid() WHERE pg_catalog.current_schema() = {schema}
