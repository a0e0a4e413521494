-- Built from a dump of a public database, not written by the tool
CREATE TABLE ragtime_migrations (id character varying(255), created_at character varying(32));
INSERT INTO ragtime_migrations VALUES ('001-a', '2026-01-01T00:00:01.000Z'), ('002-b', '2026-01-01T00:00:02.000Z');
