-- Built from the tool's source, not written by the tool: go-pg/migrations collection.go
CREATE TABLE gopg_migrations (id serial, version bigint, created_at timestamptz);
INSERT INTO gopg_migrations (version, created_at) VALUES (0, now()), (1, now()), (2, now());
