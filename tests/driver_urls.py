"""
URLs as the documentation of drivers, ORMs, pools and providers writes them.

Each is a form over ``user``, ``password``, ``host``, ``port`` and ``database``, with
what it says beside these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """
    A URL, and what the gate is to understand of it.

    ``parameters`` are libpq's beside the five; ``is_of_provider`` tells that only its
    provider's servers understand them.
    """

    name: str
    text: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    is_of_provider: bool = False


AT: Final = "{user}:{password}@{host}:{port}/{database}"
FORMS: Final = (
    Form(
        name="Prisma",
        text=f"postgresql://{AT}?schema=public&connection_limit=5&pgbouncer=true"
        "&sslmode=require&pool_timeout=2&socket_timeout=3&statement_cache_size=0"
        "&sslaccept=accept_invalid_certs",
        parameters={"sslmode": "require"},
        session={"search_path": '"public"'},
        passed_over=(
            *("connection_limit", "pgbouncer", "pool_timeout", "socket_timeout"),
            "statement_cache_size",
        ),
    ),
    Form(
        name="Prisma, several schemas",
        text=f"postgresql://{AT}?schema=Shop%20Front&connect_timeout=10",
        parameters={"connect_timeout": "10"},
        session={"search_path": '"Shop Front"'},
    ),
    Form(
        name="Rails",
        text=f"postgresql://{AT}?pool=5&prepared_statements=false&encoding=unicode"
        "&schema_search_path=app,public",
        session={"search_path": "app,public"},
        passed_over=("pool", "prepared_statements", "encoding"),
    ),
    Form(
        name="Django, dj-database-url",
        text=f"pgsql://{AT}?conn_max_age=600&currentSchema=app&ssl_require=True",
        parameters={"sslmode": "require"},
        session={"search_path": "app"},
        passed_over=("conn_max_age",),
    ),
    Form(
        name="Django, django-environ",
        text=f"psql://{AT}?CONN_MAX_AGE=60&ATOMIC_REQUESTS=True",
        passed_over=("CONN_MAX_AGE", "ATOMIC_REQUESTS"),
    ),
    Form(name="GeoDjango", text=f"postgis://{AT}"),
    Form(
        name="Doctrine",
        text=f"postgresql://{AT}?serverVersion=16&charset=utf8",
        passed_over=("serverVersion", "charset"),
    ),
    Form(
        name="Doctrine's driver",
        text=f"pdo-pgsql://{AT}?sslmode=prefer",
        parameters={"sslmode": "prefer"},
    ),
    Form(
        name="SQLAlchemy, psycopg2",
        text=f"postgresql+psycopg2://{AT}?options=-csearch_path%3Dapp",
        parameters={"options": "-csearch_path=app"},
    ),
    Form(
        name="SQLAlchemy, asyncpg",
        text=f"postgresql+asyncpg://{AT}?prepared_statement_cache_size=500&ssl=require",
        parameters={"sslmode": "require"},
        passed_over=("prepared_statement_cache_size",),
    ),
    Form(name="SQLAlchemy, psycopg", text=f"postgresql+psycopg://{AT}"),
    Form(
        name="SQLAlchemy, a host and its port",
        text="postgresql+psycopg2://{user}:{password}@/{database}?host={host}:{port}",
    ),
    Form(
        name="node-postgres",
        text=f"postgres://{AT}?ssl=true&sslmode=no-verify&statement_timeout=60s"
        "&application_name=shop&uselibpqcompat=true",
        parameters={"sslmode": "require", "application_name": "shop"},
        session={"statement_timeout": "60s"},
        passed_over=("uselibpqcompat",),
    ),
    Form(
        name="postgres.js",
        text=f"postgres://{AT}?ssl=prefer&max=10&idle_timeout=20&prepare=false",
        parameters={"sslmode": "prefer"},
        passed_over=("max", "idle_timeout", "prepare"),
    ),
    Form(
        name="pgx",
        text=f"postgres://{AT}?sslmode=verify-full&pool_max_conns=10"
        "&pool_max_conn_lifetime=1h30m&default_query_exec_mode=exec&search_path=app"
        "&timezone=UTC",
        parameters={"sslmode": "verify-full"},
        session={"search_path": "app", "timezone": "UTC"},
        passed_over=(
            *("pool_max_conns", "pool_max_conn_lifetime", "default_query_exec_mode"),
        ),
    ),
    Form(
        name="pgx, key=value",
        text="user={user} password={password} host={host} port={port} "
        "dbname={database} sslmode=prefer pool_max_conns=10 lock_timeout=5s",
        parameters={"sslmode": "prefer"},
        session={"lock_timeout": "5s"},
        passed_over=("pool_max_conns",),
    ),
    Form(
        name="lib/pq",
        text=f"postgres://{AT}?sslmode=disable&binary_parameters=yes&TimeZone=UTC"
        "&role={user}",
        parameters={"sslmode": "disable"},
        session={"timezone": "UTC", "role": "{user}"},
        passed_over=("binary_parameters",),
    ),
    Form(
        name="golang-migrate",
        text=f"postgres://{AT}?sslmode=disable&x-migrations-table=steps"
        "&x-statement-timeout=5000&x-multi-statement=true&x-no-such-word=1",
        parameters={"sslmode": "disable"},
        passed_over=("x-statement-timeout", "x-multi-statement", "x-…"),
    ),
    Form(
        name="dbmate",
        text=f"postgres://{AT}?sslmode=disable&search_path=app,public",
        parameters={"sslmode": "disable"},
        session={"search_path": "app,public"},
    ),
    Form(
        name="JDBC",
        text="jdbc:postgresql://{host}:{port}/{database}?user={user}"
        "&password={password}&currentSchema=app,public&ssl=false&prepareThreshold=0"
        "&reWriteBatchedInserts=true&ApplicationName=shop&targetServerType=primary"
        "&stringtype=unspecified&connectTimeout=10&loggerLevel=OFF",
        parameters={
            "sslmode": "disable",
            "target_session_attrs": "primary",
            "connect_timeout": "10",
        },
        session={"search_path": "app,public"},
        passed_over=(
            *("prepareThreshold", "reWriteBatchedInserts", "ApplicationName"),
            *("stringtype", "loggerLevel"),
        ),
    ),
    Form(
        name="JDBC, verified",
        text="jdbc:postgresql://{host}:{port}/{database}?user={user}"
        "&password={password}&ssl=true",
        parameters={"sslmode": "verify-full"},
    ),
    Form(
        name="Ecto",
        text=f"ecto://{AT}?ssl=true&pool_size=10&timeout=60000",
        parameters={"sslmode": "require"},
        passed_over=("pool_size", "timeout"),
    ),
    Form(
        name="sqlx",
        text=f"postgres://{AT}?ssl-mode=prefer&statement-cache-capacity=0"
        "&options[search_path]=app",
        parameters={"sslmode": "prefer"},
        session={"search_path": "app"},
        passed_over=("statement-cache-capacity",),
    ),
    Form(
        name="node-pg-migrate",
        text=f"postgres://{AT}?ssl=0&idle_in_transaction_session_timeout=9s",
        parameters={"sslmode": "disable"},
        session={"idle_in_transaction_session_timeout": "9s"},
    ),
    Form(name="Heroku", text=f"postgres://{AT}"),
    Form(
        name="Neon",
        text=f"postgresql://{AT}?sslmode=require&channel_binding=require"
        "&options=endpoint%3Dep-cool-darkness-123456&pgbouncer=true",
        parameters={
            "sslmode": "require",
            "channel_binding": "require",
            "options": "endpoint=ep-cool-darkness-123456",
        },
        passed_over=("pgbouncer",),
        is_of_provider=True,
    ),
    Form(
        name="Supabase's pooler",
        text=f"postgresql://{AT}?pgbouncer=true&connection_limit=1"
        "&supa=base-pooler.x&workaround=supabase-pooler.vercel",
        passed_over=("pgbouncer", "connection_limit", "supa", "workaround"),
    ),
    Form(
        name="Fly",
        text=f"postgres://{AT}?sslmode=disable",
        parameters={"sslmode": "disable"},
    ),
    Form(name="Render", text=f"postgresql://{AT}"),
    Form(
        name="Azure's console, psql",
        text="host={host} port={port} dbname={database} user={user} "
        "password={password} sslmode=require",
        parameters={"sslmode": "require"},
    ),
    Form(
        name="Azure's console, JDBC",
        text="jdbc:postgresql://{host}:{port}/{database}?user={user}"
        "&password={password}&sslmode=require",
        parameters={"sslmode": "require"},
    ),
    Form(
        name="RDS' console",
        text="host={host} port={port} dbname={database} user={user} "
        "password={password} sslmode=verify-full sslrootcert=/certs/global-bundle.pem",
        parameters={
            "sslmode": "verify-full",
            "sslrootcert": "/certs/global-bundle.pem",
        },
    ),
)
