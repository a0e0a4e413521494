-- Every lexical form that can hide a semicolon, in statements that PostgreSQL takes.
SELECT ';', 'it''s; fine', 'back\', ';' AS "a;b""c", U&'\003b;' UESCAPE '!', n';';
SELECT E'\';', E'\\', ';', e'a''\';', B'01', x'3b';;
SELECT 'continued;'
    -- a comment; here
    'over; lines' AS strings;
/* a block; comment ' /* nested; " */ still; $$ */
SELECT 1 /* ; */ + /*/* ; */*/ 2 - -- ; '
    -3 AS minus, 4 */* ; */ 5 @-- ;
    6;
SELECT date'2025-01-01', a$b$, c$b$ FROM (VALUES (1, 2)) v (a$b$, c$b$);
SELECT $$ ; ' -- $$, $tag$ ; $$ $ta$ $tag$, $é$ ; $é$, $_1$ $1$;$_1$;
PREPARE p AS SELECT $1::int + $2, (array_agg(x))[1:2] FROM generate_series(1, 3) x;
SELECT 1.5, .5, 5., 1e-5, 0x1F, 1_000, "é;ü", é FROM (VALUES (1, 2)) v ("é;ü", é);
CREATE RULE r AS ON INSERT TO t DO INSTEAD (SELECT 1; SELECT ')'; DELETE FROM u);
CREATE OR REPLACE FUNCTION f(begin int, "end" int = 1) RETURNS int
BEGIN /* ; */ ATOMIC
    SELECT CASE WHEN "begin" > 1 THEN CASE "end" WHEN 1 THEN 2 END ELSE 3 END AS "end";
    SELECT t."end" FROM (SELECT 1 AS "end") t;
    ;
END;
CREATE PROCEDURE e() BEGIN ATOMIC END;
BEGIN; SELECT begin atomic FROM (VALUES (1)) v (begin); END;
CREATE TABLE stdin (copy text, "from" text);
SELECT copy FROM stdin;
COPY stdin (copy, "from") FROM stdin (FORMAT csv, DELIMITER ';'); -- data; below
a;"b
SELECT ';
"
\.x
\.
COPY (SELECT 1 FROM stdin) TO STDOUT;
COPY stdin FROM '/tmp/stdin; x';
SELECT 'no semicolon at the end' -- and a comment; here
