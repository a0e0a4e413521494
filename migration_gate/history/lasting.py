"""
What a session keeps of one schema's files that DISCARD ALL does not clear. Reads only.

A session serves the next schema of a fleet only where it is then as a new one would be:
where none of this is there.
"""

from __future__ import annotations

from typing import Final

from psycopg import sql

from migration_gate.connection.qualified import names, qualified


# Where PostgreSQL's own objects end: access/transam.h, FirstNormalObjectId.
LAST_OWN_OID: Final = 16383
# The others keep what their functions like: %_SHARED, GD, SD, modules.
LANGUAGES: Final = ("internal", "c", "sql", "plpgsql")
# Extensions whose functions keep nothing that another one could find. dblink keeps its
# connections by name, isn its weak mode, and so on: what is not here is not known.
EXTENSIONS: Final = (
    *("amcheck", "autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube"),
    *("dict_int", "dict_xsyn", "earthdistance", "file_fdw", "fuzzystrmatch", "hstore"),
    *("insert_username", "intagg", "intarray", "lo", "ltree", "moddatetime"),
    *("pageinspect", "pg_buffercache", "pg_freespacemap", "pg_prewarm"),
    *("pg_stat_statements", "pg_trgm", "pg_visibility", "pg_walinspect", "pgcrypto"),
    *("pgrowlocks", "pgstattuple", "plpgsql", "postgis", "seg", "sslinfo", "tablefunc"),
    *("tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector"),
)
# A role that the session begins with is gone after DISCARD ALL on some minor releases;
# what a trigger at the login sets is gone on all. A text search configuration that is
# found along the path is looked for at the login, and once more in a session.
IS_ODD: Final = qualified(
    """
pg_catalog.current_setting('role') <> 'none'
OR NOT pg_catalog.starts_with(
    pg_catalog.current_setting('default_text_search_config'), 'pg_catalog.')
OR EXISTS (
    SELECT FROM pg_catalog.pg_db_role_setting d,
        pg_catalog.unnest(d.setconfig) AS own (setting)
    WHERE pg_catalog.starts_with(own.setting, 'default_text_search_config=')
      AND NOT pg_catalog.starts_with(
          own.setting, 'default_text_search_config=pg_catalog.'))
OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger
           WHERE evtevent = 'login' AND evtenabled <> 'D')
OR EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanname <> ALL ({languages}))
OR EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> ALL ({extensions}))
"""
).format(languages=names(LANGUAGES), extensions=names(EXTENSIONS))
# Functions that may keep something of the path that they were first called with.
# PL/pgSQL looks for the types of a function's variables once in a session, or for a
# trigger once for each table: read_datatype in its gram.y, for what DECLARE says. All
# else is planned anew where the path is another; and where the function has a path of
# its own, that is the same for all. C may do anything. So many are looked at; more
# count as such.
FUNCTIONS_MAX: Final = 5000
HAS_CODE: Final = qualified(
    """
EXISTS (
    SELECT FROM (SELECT oid, prolang, prosrc, proconfig FROM pg_catalog.pg_proc
                 WHERE oid > {last}::pg_catalog.oid LIMIT {limit}) AS p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE (l.lanname = 'c' OR l.lanname = 'plpgsql' AND
           pg_catalog.strpos(pg_catalog.lower(p.prosrc), 'declare') > 0)
      AND NOT EXISTS (
          SELECT FROM pg_catalog.unnest(p.proconfig) AS own (setting)
          WHERE pg_catalog.starts_with(own.setting, 'search_path='))
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid = p.oid AND d.deptype = 'e'))
OR (SELECT pg_catalog.count(*) > {limit}
    FROM (SELECT FROM pg_catalog.pg_proc
          WHERE oid > {last}::pg_catalog.oid LIMIT {limit} + 1) AS p)
"""
).format(last=LAST_OWN_OID, limit=FUNCTIONS_MAX)
IS_LASTING: Final = sql.SQL("({} OR {})").format(IS_ODD, HAS_CODE)
