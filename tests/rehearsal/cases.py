"""
The statements of the table in docs/rehearsal.md, each with what it needs.

Each has a schema of its own with two tables of rows; ``p`` and ``q`` are known to the
application, and no more is.
"""

from __future__ import annotations

from typing import Final, NamedTuple


TABLES: Final = (
    "CREATE TABLE p (id int PRIMARY KEY, a int, b text, c int DEFAULT 0);"
    "INSERT INTO p SELECT g, g, 'x' || g, 0 FROM generate_series(1, 500) g;"
    "CREATE TABLE q (id int PRIMARY KEY, p_id int);"
    "INSERT INTO q SELECT g, g FROM generate_series(1, 500) g;"
)
PARTITIONED: Final = (
    "CREATE TABLE m (id int, at int) PARTITION BY RANGE (at);"
    "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (100);"
    "INSERT INTO m SELECT g, g % 100 FROM generate_series(1, 500) g;"
)
LOOSE: Final = (
    PARTITIONED
    + "CREATE TABLE m2 (id int, at int);INSERT INTO m2 VALUES (1, 150), (2, 160);"
)
VIEW: Final = "CREATE VIEW v AS SELECT id, a FROM p;"
MATERIALIZED: Final = (
    "CREATE MATERIALIZED VIEW mv AS SELECT id, a FROM p;CREATE UNIQUE INDEX ON mv (id);"
)
KEY: Final = "ALTER TABLE q ADD CONSTRAINT k FOREIGN KEY (p_id) REFERENCES p NOT VALID;"
CHECK: Final = "ALTER TABLE p ADD CONSTRAINT k CHECK (a IS NOT NULL)"
INDEX: Final = "CREATE INDEX i ON p (a);"
UNIQUE: Final = "CREATE UNIQUE INDEX i ON p (a);"
TRIGGER: Final = (
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
)
DOMAIN: Final = (
    "CREATE DOMAIN d AS int;CREATE TABLE w (x d);"
    "INSERT INTO w SELECT generate_series(1, 500);"
)
ENUM: Final = "CREATE TYPE e AS ENUM ('one', 'two');CREATE TABLE w (x e);"


class Case(NamedTuple):
    """
    A statement, what is there before it, and the first version that has it.

    ``where`` tells two of the same statement apart.
    """

    sql: str
    setup: str = ""
    where: str = ""
    since: int = 13


CASES: Final = (
    # columns
    Case("ALTER TABLE p ADD COLUMN n int"),
    Case("ALTER TABLE p ADD COLUMN n int DEFAULT 5"),
    Case("ALTER TABLE p ADD COLUMN n int NOT NULL DEFAULT 5"),
    Case("ALTER TABLE p ADD COLUMN n timestamptz DEFAULT now()"),
    Case("ALTER TABLE p ADD COLUMN n timestamptz DEFAULT clock_timestamp()"),
    Case("ALTER TABLE p ADD COLUMN n float DEFAULT random()"),
    Case("ALTER TABLE p ADD COLUMN n uuid DEFAULT gen_random_uuid()"),
    Case("ALTER TABLE p ADD COLUMN n bigserial"),
    Case("ALTER TABLE p ADD COLUMN n int GENERATED ALWAYS AS IDENTITY"),
    Case("ALTER TABLE p ADD COLUMN n int GENERATED ALWAYS AS (a + 1) STORED"),
    Case(
        "ALTER TABLE p ADD COLUMN n int GENERATED ALWAYS AS (a + 1) VIRTUAL", since=18
    ),
    Case("ALTER TABLE p ADD COLUMN n int UNIQUE"),
    Case("ALTER TABLE p ADD COLUMN n int CHECK (n > 0)"),
    Case("ALTER TABLE p ADD COLUMN n int REFERENCES q"),
    Case("ALTER TABLE p DROP COLUMN b"),
    Case("ALTER TABLE p RENAME COLUMN b TO n"),
    Case("ALTER TABLE p ALTER COLUMN a SET DEFAULT 5"),
    Case("ALTER TABLE p ALTER COLUMN a DROP DEFAULT"),
    Case("ALTER TABLE p ALTER COLUMN a SET NOT NULL"),
    Case(
        "ALTER TABLE p ALTER COLUMN a SET NOT NULL",
        CHECK + ";",
        "with a `CHECK (a IS NOT NULL)`",
    ),
    Case(
        "ALTER TABLE p ALTER COLUMN a SET NOT NULL",
        CHECK + " NOT VALID;",
        "with one that is NOT VALID",
    ),
    Case("ALTER TABLE p ALTER COLUMN a DROP NOT NULL"),
    Case("ALTER TABLE p ADD CONSTRAINT k NOT NULL a NOT VALID", since=18),
    Case("ALTER TABLE p ALTER COLUMN a TYPE bigint"),
    Case("ALTER TABLE p ALTER COLUMN b TYPE varchar(50)"),
    Case(
        "ALTER TABLE p ALTER COLUMN b TYPE varchar(50)",
        "ALTER TABLE p ALTER b TYPE varchar(20);",
        "from `varchar(20)`",
    ),
    Case(
        "ALTER TABLE p ALTER COLUMN b TYPE text",
        "ALTER TABLE p ALTER b TYPE varchar(20);CREATE INDEX ON p (b);",
        "from `varchar(20)`",
    ),
    Case("ALTER TABLE p ALTER COLUMN b TYPE bytea USING b::bytea"),
    Case("ALTER TABLE p ALTER COLUMN a SET STATISTICS 500"),
    Case("ALTER TABLE p ALTER COLUMN b SET STORAGE EXTERNAL"),
    Case("ALTER TABLE p ALTER COLUMN b SET COMPRESSION pglz", since=14),
    Case("ALTER TABLE p ADD COLUMN n d", "CREATE DOMAIN d AS int;", "a domain"),
    Case(
        "ALTER TABLE p ADD COLUMN n d",
        "CREATE DOMAIN d AS int CHECK (VALUE > 0);",
        "a domain with a `CHECK`",
    ),
    Case(
        "ALTER TABLE p ALTER COLUMN c ADD GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE p ALTER c DROP DEFAULT, ALTER c SET NOT NULL;",
    ),
    Case("ALTER TABLE p ALTER COLUMN a TYPE int, ADD COLUMN n int"),
    # constraints
    Case("ALTER TABLE p ADD CHECK (a > 0)"),
    Case("ALTER TABLE p ADD CHECK (a > 0) NOT VALID"),
    Case("ALTER TABLE p VALIDATE CONSTRAINT k", CHECK + " NOT VALID;"),
    Case("ALTER TABLE p ADD UNIQUE (a)"),
    Case("ALTER TABLE p ADD UNIQUE USING INDEX i", UNIQUE),
    Case("ALTER TABLE p ADD PRIMARY KEY (a)", "ALTER TABLE p DROP CONSTRAINT p_pkey;"),
    Case(
        "ALTER TABLE p ADD PRIMARY KEY USING INDEX i",
        "ALTER TABLE p DROP CONSTRAINT p_pkey, ALTER a SET NOT NULL;" + UNIQUE,
    ),
    Case("ALTER TABLE p ADD EXCLUDE USING btree (a WITH =)"),
    Case("ALTER TABLE q ADD FOREIGN KEY (p_id) REFERENCES p"),
    Case("ALTER TABLE q ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID"),
    Case("ALTER TABLE q VALIDATE CONSTRAINT k", KEY),
    Case("ALTER TABLE p DROP CONSTRAINT k", CHECK + ";"),
    Case("ALTER TABLE q DROP CONSTRAINT k", KEY),
    Case("ALTER TABLE p RENAME CONSTRAINT k TO n", CHECK + ";"),
    Case("ALTER TABLE q ALTER CONSTRAINT k DEFERRABLE", KEY),
    # tables
    Case("CREATE TABLE n (id int)"),
    Case("CREATE TABLE n (id int REFERENCES p)"),
    Case("CREATE TABLE n (LIKE p INCLUDING ALL)"),
    Case("CREATE TABLE n AS SELECT * FROM p"),
    Case("DROP TABLE p"),
    Case("DROP TABLE q", KEY, "with a foreign key to `p`"),
    Case("TRUNCATE p"),
    Case("ALTER TABLE p RENAME TO n"),
    Case("ALTER TABLE p SET SCHEMA other", "CREATE SCHEMA other;"),
    Case("ALTER TABLE p SET (fillfactor = 90)"),
    Case("ALTER TABLE p SET UNLOGGED"),
    Case("ALTER TABLE p SET ACCESS METHOD heap", since=15),
    Case("ALTER TABLE p REPLICA IDENTITY FULL"),
    Case("ALTER TABLE p CLUSTER ON p_pkey"),
    Case("ALTER TABLE p ENABLE ROW LEVEL SECURITY"),
    Case("ALTER TABLE p OWNER TO CURRENT_USER"),
    Case("ALTER TABLE p INHERIT q", "ALTER TABLE p ADD p_id int;"),
    Case("COMMENT ON TABLE p IS 'x'"),
    Case("GRANT SELECT ON p TO PUBLIC"),
    Case("CREATE STATISTICS s ON a, c FROM p"),
    Case("CREATE POLICY y ON p USING (true)"),
    Case("LOCK TABLE p IN EXCLUSIVE MODE"),
    # indexes
    Case("CREATE INDEX ON p (a)"),
    Case("CREATE UNIQUE INDEX ON p (a)"),
    Case("CREATE INDEX CONCURRENTLY ON p (a)"),
    Case("CREATE INDEX ON m (id)", PARTITIONED),
    Case("CREATE INDEX ON ONLY m (id)", PARTITIONED),
    Case("DROP INDEX i", INDEX),
    Case("DROP INDEX CONCURRENTLY i", INDEX),
    Case("REINDEX INDEX i", INDEX),
    Case("REINDEX TABLE p"),
    Case("REINDEX INDEX CONCURRENTLY i", INDEX),
    Case("REINDEX TABLE CONCURRENTLY p"),
    Case("ALTER INDEX i RENAME TO n", INDEX),
    Case("ALTER INDEX i SET (fillfactor = 90)", INDEX),
    # partitions
    Case("CREATE TABLE n PARTITION OF m FOR VALUES FROM (100) TO (200)", PARTITIONED),
    Case("CREATE TABLE n PARTITION OF m DEFAULT", PARTITIONED),
    Case("ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (100) TO (200)", LOOSE),
    Case(
        "ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (100) TO (200)",
        LOOSE + "ALTER TABLE m2 ADD CHECK (at IS NOT NULL AND at >= 100 AND at < 200);",
        "with a `CHECK` of the same range",
    ),
    Case(
        "CREATE TABLE n PARTITION OF m FOR VALUES FROM (100) TO (200)",
        PARTITIONED
        + "CREATE TABLE md PARTITION OF m DEFAULT;INSERT INTO m VALUES (1, 300);",
        "with a default partition `md`",
    ),
    Case("ALTER TABLE m DETACH PARTITION m1", PARTITIONED),
    Case("ALTER TABLE m DETACH PARTITION m1 CONCURRENTLY", PARTITIONED, since=14),
    Case(
        "ALTER TABLE m DETACH PARTITION m1 CONCURRENTLY",
        PARTITIONED + "ALTER TABLE m ADD FOREIGN KEY (id) REFERENCES p;",
        "with a foreign key to `p`",
        since=14,
    ),
    Case("ALTER TABLE m ADD COLUMN n int", PARTITIONED),
    # views
    Case("CREATE VIEW n AS SELECT * FROM p"),
    Case("CREATE OR REPLACE VIEW v AS SELECT id, a, b FROM p", VIEW),
    Case("DROP VIEW v", VIEW),
    Case("ALTER VIEW v RENAME TO n", VIEW),
    Case("DROP MATERIALIZED VIEW mv", MATERIALIZED),
    Case("CREATE MATERIALIZED VIEW n AS SELECT * FROM p"),
    Case("REFRESH MATERIALIZED VIEW mv", MATERIALIZED),
    Case("REFRESH MATERIALIZED VIEW CONCURRENTLY mv", MATERIALIZED),
    # triggers, functions, types
    Case(
        "CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f()", TRIGGER
    ),
    Case(
        "DROP TRIGGER t ON p",
        TRIGGER
        + "CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f();",
    ),
    Case(
        "ALTER TABLE p DISABLE TRIGGER t",
        TRIGGER
        + "CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f();",
    ),
    Case("CREATE RULE r AS ON DELETE TO p DO INSTEAD NOTHING"),
    Case("CREATE FUNCTION n() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    Case("CREATE TYPE n AS ENUM ('one')"),
    Case("ALTER TYPE e ADD VALUE 'three'", ENUM),
    Case("ALTER TYPE e RENAME VALUE 'one' TO 'n'", ENUM),
    Case("ALTER DOMAIN d ADD CHECK (VALUE > 0)", DOMAIN),
    Case("ALTER DOMAIN d ADD CHECK (VALUE > 0) NOT VALID", DOMAIN),
    Case("ALTER DOMAIN d SET NOT NULL", DOMAIN),
    Case("CREATE SEQUENCE n"),
    Case("ALTER SEQUENCE s RESTART 7", "CREATE SEQUENCE s;"),
    # rows, and what tidies
    Case("INSERT INTO p VALUES (1000, 1, 'x', 1)"),
    Case("UPDATE p SET c = 1"),
    Case("UPDATE p SET c = 1 WHERE id = 7"),
    Case("DELETE FROM q"),
    Case(
        "MERGE INTO p USING q ON p.id = q.id WHEN MATCHED THEN UPDATE SET c = 1",
        since=15,
    ),
    Case("SELECT count(*) FROM p"),
    Case("DO 'BEGIN UPDATE p SET c = 1; END'"),
    Case("DO 'BEGIN UPDATE p SET c = 1 WHERE id = 7; END'"),
    Case("DO $$ BEGIN EXECUTE 'DELETE FROM q'; END $$"),
    Case(
        "SELECT f()",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'UPDATE p SET c = 1';",
        "a function that updates each row of `p`",
    ),
    Case("VACUUM p"),
    Case("VACUUM FULL p"),
    Case("ANALYZE p"),
    Case("CLUSTER p USING p_pkey"),
)
