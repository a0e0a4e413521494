-- Built by hand: the CLI's table with the columns that the hosted platform adds to it
CREATE SCHEMA supabase_migrations;
CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[], name text, created_by text, idempotency_key text UNIQUE, rollback text[]);
INSERT INTO supabase_migrations.schema_migrations (version, statements, name, created_by) VALUES ('20260101000001', '{"create table a(id int)"}', 'a', 'someone@example.com'), ('20260101000002', '{"create table b(id int)"}', 'b', NULL);
