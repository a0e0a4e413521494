"""
Parameters that drivers, ORMs and pools put into a connection string. Pure.

One DATABASE_URL serves an application and the gate. What says nothing about where and
how to log in is passed over; a search path and PostgreSQL's own parameters are set in
the gate's sessions; words for TLS become libpq's, or are refused. The table in
``docs/settings.md`` is compared with the ones here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Mapping


# What each of them reads there itself; case does not count.
PASSED_OVER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Prisma": (
            *("pgbouncer", "connection_limit", "pool_timeout", "socket_timeout"),
            *("statement_cache_size", "single_use_connections"),
            *("max_connection_lifetime", "max_idle_connection_lifetime"),
        ),
        "Rails": (
            *("adapter", "pool", "prepared_statements", "statement_limit", "encoding"),
            *("checkout_timeout", "idle_timeout", "reaping_frequency", "reconnect"),
            *("advisory_locks", "database_tasks", "insert_returning", "min_messages"),
            *("max_connections", "min_connections", "max_age", "pool_jitter"),
        ),
        "Django": (
            *("engine", "conn_max_age", "conn_health_checks", "ATOMIC_REQUESTS"),
            *("AUTOCOMMIT", "DISABLE_SERVER_SIDE_CURSORS", "server_side_binding"),
            "isolation_level",
        ),
        "Doctrine and Laravel": (
            *("serverVersion", "charset", "driver", "persistent", "prefix"),
            *("default_dbname", "use_savepoints"),
        ),
        "SQLAlchemy and asyncpg": (
            *("prepared_statement_cache_size", "prepared_statement_name_func"),
            *("async_fallback", "command_timeout", "max_cached_statement_lifetime"),
            *("max_cacheable_statement_size", "executemany_mode", "plugin"),
            *("use_native_unicode", "max_overflow", "pool_recycle", "pool_pre_ping"),
        ),
        "node-postgres and postgres.js": (
            *("max", "min", "idleTimeoutMillis", "connectionTimeoutMillis"),
            *("query_timeout", "keepAlive", "keepAliveInitialDelayMillis", "maxUses"),
            *("allowExitOnIdle", "uselibpqcompat", "binary", "max_lifetime"),
            *("prepare", "fetch_types", "max_pipeline", "backoff", "keep_alive"),
        ),
        "pgx and lib/pq": (
            *("pool_max_conns", "pool_min_conns", "pool_min_idle_conns"),
            *("pool_max_conn_lifetime", "pool_max_conn_lifetime_jitter"),
            *("pool_max_conn_idle_time", "pool_health_check_period"),
            *("pool_ping_timeout", "default_query_exec_mode", "min_read_buffer_size"),
            *("statement_cache_capacity", "description_cache_capacity"),
            *("binary_parameters", "disable_prepared_binary_result"),
        ),
        "JDBC": (
            *("adaptiveFetch", "adaptiveFetchMaximum", "adaptiveFetchMinimum"),
            *("allowEncodingChanges", "ApplicationName", "assumeMinServerVersion"),
            *("autosave", "binaryTransfer", "binaryTransferDisable"),
            *("binaryTransferEnable", "cancelSignalTimeout", "cleanupSavepoints"),
            *("databaseMetadataCacheFields", "databaseMetadataCacheFieldsMiB"),
            *("defaultRowFetchSize", "disableColumnSanitiser", "escapeSyntaxCallMode"),
            *("groupStartupParameters", "gssResponseTimeout", "hostRecheckSeconds"),
            *("hideUnprivilegedObjects", "localSocketAddress", "loggerFile"),
            *("loggerLevel", "loginTimeout", "logServerErrorDetail"),
            *("logUnclosedConnections", "maxResultBuffer", "maxSendBufferSize"),
            *("preparedStatementCacheQueries", "preparedStatementCacheSizeMiB"),
            *("preferQueryMode", "prepareThreshold"),
            *("protocolVersion", "queryTimeout", "quoteReturningIdentifiers"),
            *("readOnly", "readOnlyMode", "receiveBufferSize", "sendBufferSize"),
            *("reWriteBatchedInserts", "socketTimeout", "sslResponseTimeout"),
            *("stringtype", "tcpKeepAlive", "tcpNoDelay", "unknownLength"),
        ),
        "Ecto": (
            *("pool_size", "pool_count", "timeout", "queue_target", "queue_interval"),
            *("idle_interval", "ownership_timeout"),
        ),
        "sqlx": ("statement-cache-capacity",),
        "golang-migrate": (
            *("x-statement-timeout", "x-multi-statement", "x-migrations-table-quoted"),
            *("x-multi-statement-max-size", "x-advisory-lock-timeout-interval"),
        ),
        "Supabase and Vercel": ("supa", "workaround"),
    }
)
# What is set in the gate's sessions: PostgreSQL's own parameters, which lib/pq, pgx,
# asyncpg and postgres.js hand on to the server, and other names for them.
SESSION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "schema": "search_path",  # Prisma's: one name
        "currentschema": "search_path",
        "schema_search_path": "search_path",
        "assume_role": "role",
        **{
            name: name
            for name in (
                *("bytea_output", "client_min_messages", "datestyle", "jit"),
                *("default_tablespace", "default_text_search_config"),
                *("default_transaction_deferrable", "default_transaction_isolation"),
                *("default_transaction_read_only", "extra_float_digits"),
                *("idle_in_transaction_session_timeout", "idle_session_timeout"),
                *("intervalstyle", "lock_timeout", "maintenance_work_mem", "role"),
                *("row_security", "search_path", "standard_conforming_strings"),
                *("statement_timeout", "synchronous_commit", "temp_tablespaces"),
                *("timezone", "transaction_timeout", "work_mem"),
            )
        },
    }
)
# Those that libpq has too, under another name.
RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ssl-mode": "sslmode",
        "ssl-root-cert": "sslrootcert",
        "ssl-ca": "sslrootcert",
        "ssl-cert": "sslcert",
        "ssl-key": "sslkey",
        "connecttimeout": "connect_timeout",
        "channelbinding": "channel_binding",
        "kerberosservername": "krbsrvname",
    }
)
_SSL_MODES: Final = (
    *("disable", "allow", "prefer"),
    *("require", "verify-ca", "verify-full"),
)
# And those whose words are others: what each word means.
TRANSLATED: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = MappingProxyType(
    {
        "ssl": (
            "sslmode",
            {
                "true": "require",
                "1": "require",
                "no-verify": "require",
                "false": "disable",
                "0": "disable",
                **{word: word for word in _SSL_MODES},
            },
        ),
        "ssl_require": ("sslmode", {"true": "require", "false": ""}),
        "sslaccept": (
            "sslmode",
            {"strict": "verify-full", "accept_invalid_certs": ""},
        ),
        "sslfactory": (
            "sslmode",
            {
                "org.postgresql.ssl.nonvalidatingfactory": "require",
                "org.postgresql.ssl.defaultjavasslfactory": "verify-full",
                "org.postgresql.ssl.libpqfactory": "",
            },
        ),
        "targetservertype": (
            "target_session_attrs",
            {
                "any": "any",
                "primary": "primary",
                "master": "primary",
                "secondary": "standby",
                "slave": "standby",
                "preferprimary": "any",
                "prefersecondary": "prefer-standby",
                "preferslave": "prefer-standby",
            },
        ),
        "loadbalancehosts": (
            "load_balance_hosts",
            {"true": "random", "false": "disable"},
        ),
    }
)
_ELSEWHERE: Final = (
    "Give the gate a URL of its own: with GATE_LOGIN for a cloud's token, or with the "
    "address of a proxy that runs beside it."
)
_CLASS: Final = ("names a class of Java's, which the gate cannot load", _ELSEWHERE)
# What would be another login, or a weaker one.
REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "sslidentity": (
            "names a file of PKCS#12, which libpq does not read",
            "Write it as PEM (openssl pkcs12), and name it in sslcert and sslkey.",
        ),
        "sslinline": (
            "says that certificates stand in the URL, which libpq does not read there",
            "Put them in files, and name these in sslcert, sslkey and sslrootcert.",
        ),
        **dict.fromkeys(
            (
                *("socketfactory", "socketfactoryarg", "sslhostnameverifier"),
                *("sslpasswordcallback", "authenticationpluginclassname"),
                *("cloudsqlinstance", "sslfactoryarg", "wrapperplugins"),
            ),
            _CLASS,
        ),
    }
)
# Npgsql's, and libpq's for them.
NET: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "host",
        "server": "host",
        "data source": "host",
        "port": "port",
        "database": "dbname",
        "initial catalog": "dbname",
        "username": "user",
        "user name": "user",
        "user id": "user",
        "userid": "user",
        "uid": "user",
        "user": "user",
        "password": "password",
        "pwd": "password",
        "timeout": "connect_timeout",
        "ssl mode": "sslmode",
        "sslmode": "sslmode",
        "root certificate": "sslrootcert",
        "ssl certificate": "sslcert",
        "ssl key": "sslkey",
        "options": "options",
        "search path": "search_path",
        "target session attributes": "target_session_attrs",
    }
)
