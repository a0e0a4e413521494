-- PostgreSQL takes each of these; psql cuts them elsewhere, by its rules of thumb.
SELECT E'a'
'\';' AS "psql looks at one line, and loses that the string is an escape string";
CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; END;
SELECT 'the last';
