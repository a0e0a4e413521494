"""
Parameters that drivers, ORMs and pools put into a connection string. Pure.

One DATABASE_URL serves an application and the gate. What says nothing about where and
how to log in is passed over; a search path and PostgreSQL's own parameters are set in
the gate's sessions; words for TLS become libpq's, or are refused. The table in
``docs/settings.md`` is compared with the ones here.

No fault holds a piece of a value.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from migration_gate.settings.connection_string import MalformedError


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
HISTORY_TABLE: Final = "x-migrations-table"
HISTORY_TABLE_QUOTED: Final = "x-migrations-table-quoted"
_NAMES: Final = frozenset(key.lower() for keys in PASSED_OVER.values() for key in keys)
_BRACKETS: Final = re.compile(r"options\[([A-Za-z_.]+)\]")  # sqlx's
_YES: Final = ("true", "1")
_OFF_OR_VERIFIED: Final = ("disable", "verify-ca", "verify-full")


class Meaning(NamedTuple):
    """
    What such parameters mean.

    ``parameters`` are libpq's, all of them; ``session`` is what is set in each session;
    ``passed_over`` has the names of all others. ``history_table`` is golang-migrate's,
    as GATE_HISTORY_TABLE is written; empty where it is not said.
    """

    parameters: dict[str, str]
    session: dict[str, str]
    passed_over: tuple[str, ...]
    history_table: str


def is_known(key: str) -> bool:
    """Tell whether a parameter is one of those that are understood here."""
    bare = key.lower()
    return (
        bare in _NAMES
        or bare in SESSION
        or bare in RENAMED
        or bare in TRANSLATED
        or bare in REFUSED
        or bare.startswith("x-")
        or _BRACKETS.fullmatch(key) is not None
    )


def understand(
    foreign: Mapping[str, str], own: Mapping[str, str], *, is_jdbc: bool = False
) -> Meaning:
    """
    Return what known parameters mean beside libpq's own, which come first.

    Args:
        foreign: Those that libpq does not know, as they are written.
        own: Those that it knows.
        is_jdbc: That they stand in a URL of JDBC's.

    Raises:
        MalformedError: One would be another login, or a weaker one; or its value is
            none of those that it can have.
    """
    given = {key.lower(): value for key, value in foreign.items()}
    _refuse(given)
    parameters = {
        **{RENAMED[key]: value for key, value in given.items() if key in RENAMED},
        **_translate_all(given, is_jdbc=is_jdbc),
        **own,
    }
    _trust(given, parameters)
    session: dict[str, str] = {}
    passed_over: list[str] = []
    for key, value in foreign.items():
        bare, brackets = key.lower(), _BRACKETS.fullmatch(key)
        if brackets is not None:
            session[brackets[1].lower()] = value
        elif bare in SESSION and (value or bare != "schema"):
            session[SESSION[bare]] = quote(value) if bare == "schema" else value
        elif bare in _NAMES or bare == "schema":
            passed_over.append(key)
        elif bare.startswith("x-") and bare != HISTORY_TABLE:
            passed_over.append("x-…")
    return Meaning(
        parameters=parameters,
        session=session,
        passed_over=tuple(dict.fromkeys(passed_over)),
        history_table=_history_table(given),
    )


def _refuse(given: Mapping[str, str]) -> None:
    for key, (rule, remedy) in REFUSED.items():
        if key in given:
            raise MalformedError(f"has a parameter {key} that {rule}", remedy)


def _translate_all(given: Mapping[str, str], *, is_jdbc: bool) -> dict[str, str]:
    """Return libpq's words for those of others."""
    found: dict[str, str] = {}
    for key, (keyword, words) in TRANSLATED.items():
        if key not in given:
            continue
        word = words.get(given[key].lower())
        if word is None:
            raise MalformedError(
                f"has a parameter {key} with a word that is not known",
                f"Write {keyword} in its place.",
            )
        # JDBC's verifies the server, which libpq's does not.
        if is_jdbc and key == "ssl" and word == "require":
            word = "verify-full"
        if word:
            found[keyword] = word
    return found


def _trust(given: Mapping[str, str], parameters: dict[str, str]) -> None:
    """Verify the server as Prisma's words and Java's say it, and not less."""
    accepts, factory = given.get("sslaccept", ""), given.get("sslfactory", "")
    if accepts and "sslcert" in parameters and "sslkey" not in parameters:
        # Prisma's is that of the server.
        parameters["sslrootcert"] = parameters.pop("sslcert")
    is_strict = accepts.lower() == "strict"
    if is_strict and parameters["sslmode"] not in _OFF_OR_VERIFIED:
        parameters["sslmode"] = "verify-full"
    of_system = is_strict or factory.endswith("DefaultJavaSSLFactory")
    if of_system and parameters["sslmode"] == "verify-full":
        parameters.setdefault("sslrootcert", "system")


def _history_table(given: Mapping[str, str]) -> str:
    name = given.get(HISTORY_TABLE, "")
    if not name or given.get(HISTORY_TABLE_QUOTED, "").lower() in _YES:
        return name
    return quote(name)


def quote(name: str) -> str:
    """Return a name as it is written where it may be several."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
