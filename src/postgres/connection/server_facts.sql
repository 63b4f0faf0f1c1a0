-- What a database's server is, and how many more connections it accepts.
SELECT current_setting('server_version_num'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only'), current_user,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    coalesce(inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1', true)
