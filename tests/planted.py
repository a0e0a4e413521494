"""
What a role that may only CREATE in public can plant there, to be called by others.

Operators whose types fit better than PostgreSQL's own, and functions, types and
relations that come before them where the search path begins with public. Each one
counts its calls in a sequence, which no rollback takes back.
"""

from __future__ import annotations

import re

from contextlib import closing

from tests.fix_gate import ROOT
from tests.fix_postgres import Database


OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "+", "-", "*", "/", "~", "~~")
TYPES = (
    "name",
    "text",
    "varchar",
    "oid",
    "int2",
    "int4",
    "int8",
    "numeric",
    "float8",
    "timestamp",
    "timestamptz",
    '"char"',
    "bool",
    "xid",
)
FUNCTIONS = {"now", "count", "sum", "concat", "date_part", "timezone", "extract"}
PLANT = """
SET search_path = pg_catalog;
CREATE SEQUENCE public.called;
GRANT USAGE ON SEQUENCE public.called TO PUBLIC;
CREATE FUNCTION public.note() RETURNS pg_catalog.bool LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_catalog.nextval(''public.called''); RETURN true; END';
DO $plant$
DECLARE
    body text := '''BEGIN PERFORM public.note(); RETURN NULL; END''';
    made record;
BEGIN
    FOR made IN
        SELECT o, pg_catalog.format('pg_catalog.%s', a) AS a,
               pg_catalog.format('pg_catalog.%s', b) AS b,
               CASE WHEN o IN ('||', '+', '-', '*', '/')
                    THEN pg_catalog.format('pg_catalog.%s', a)
                    ELSE 'pg_catalog.bool' END AS result
        FROM pg_catalog.unnest({operators}) o, pg_catalog.unnest({types}) a,
             pg_catalog.unnest({types}) b
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE OR REPLACE FUNCTION public.%I(%s, %s) RETURNS %s '
            'LANGUAGE plpgsql AS %s', 'planted ' || made.result, made.a, made.b,
            made.result, body);
        EXECUTE pg_catalog.format(
            'CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = '
            'public.%I)', made.o, made.a, made.b, 'planted ' || made.result);
    END LOOP;
    FOR made IN
        SELECT p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid) AS a,
               pg_catalog.format_type(p.prorettype, NULL) AS result
        FROM pg_catalog.pg_proc p
        WHERE p.proname = ANY ({functions})
          AND p.pronamespace = 'pg_catalog'::regnamespace AND NOT p.proretset
          AND p.prokind IN ('f', 'a') AND p.provariadic = 0
          AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_type t
              WHERE (t.oid = ANY (p.proargtypes) OR t.oid = p.prorettype)
                AND t.typtype = 'p')
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %s',
            made.proname, made.a, made.result, body);
    END LOOP;
    FOR made IN
        SELECT c.relname, (
            SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ')
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              AND a.atttypid <> 'pg_catalog.anyarray'::regtype) AS columns
        FROM pg_catalog.pg_class c
        WHERE c.relname = ANY ({relations}) AND c.relkind IN ('r', 'v')
          AND c.relnamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE VIEW public.%I AS SELECT %s FROM pg_catalog.%I WHERE public.note()',
            made.relname, made.columns, made.relname);
    END LOOP;
    FOR made IN SELECT pg_catalog.unnest({types}) AS t LOOP
        EXECUTE pg_catalog.format(
            'CREATE DOMAIN public.%s AS pg_catalog.%s CHECK (public.note())',
            made.t, made.t);
    END LOOP;
END
$plant$;
"""


def plant(database: Database) -> None:
    """Plant all of it, as a role of its own."""
    low = database.role("low")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {low.user}")
    source = "".join(
        path.read_text("utf-8") for path in (ROOT / "migration_gate").rglob("*.py")
    )
    used = set(re.findall(r"pg_catalog\.\"?(\w+)", source))
    low.execute(
        PLANT.format(
            operators=_array(OPERATORS),
            types=_array(TYPES),
            functions=_array(used | FUNCTIONS),
            relations=_array(used),
        )
    )


def was_called(database: Database) -> bool:
    """Tell whether anything planted has run; from a session that finds none of it."""
    with closing(database.connect(options="-c search_path=pg_catalog")) as conn:
        return conn.execute("SELECT is_called FROM public.called").fetchall() != [
            (False,)
        ]


def _array(texts: set[str] | tuple[str, ...]) -> str:
    return "ARRAY['" + "', '".join(sorted(texts)) + "']"
