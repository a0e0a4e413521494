-- Built from the tool's source, not written by the tool: drizzle-team/drizzle-orm branch beta, drizzle-orm/src/up-migrations/pg.ts (1.0)
CREATE SCHEMA drizzle;
CREATE TABLE drizzle.__drizzle_migrations (id serial PRIMARY KEY, hash text NOT NULL, created_at bigint, name text, applied_at timestamp with time zone DEFAULT now());
INSERT INTO drizzle.__drizzle_migrations (hash, created_at, name) VALUES ('e64777f764b14e21b426c2f010a692a9357ce687ce98a6d194631041bb7c9148', 1795933283000, '20261129062123_a'), ('18ef622934af87930a6aefec2120780dc95e556019b7f2324cf5335c451afa22', 1795933284000, '20261129062124_b');
