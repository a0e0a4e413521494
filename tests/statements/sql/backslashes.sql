-- A file that changes how strings are read, as dumps of old servers do.
SELECT 'standard \', 'next';
SET standard_conforming_strings = off;
SELECT 'it\'s one; string', N'and \'; this', 'a''b\\', ';';
SELECT 'joined'
  ' with \' this; one' AS joined, B'01', x'0F';
SELECT ('\'(;', E'\';', "a\", ';');
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT \'a; b\'::text';
CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $$SELECT '\'$$; SELECT 1;
CREATE FUNCTION h() RETURNS text BEGIN ATOMIC SELECT 'a\';'; END;
COPY t FROM stdin;
a\b'
\.
INSERT INTO t VALUES ('c:\\temp\\'), ('\';');
RESET standard_conforming_strings;
SELECT 'standard \', 'again';
SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);
SELECT '\'; off';
SET standard_conforming_strings TO DEFAULT;
SELECT '\', 'on';
