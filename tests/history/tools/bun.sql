-- Built from the tool's source, not written by the tool: uptrace/bun migrate/migration.go
CREATE TABLE bun_migrations (id bigserial NOT NULL PRIMARY KEY, name varchar, group_id bigint, migrated_at timestamptz NOT NULL DEFAULT current_timestamp);
INSERT INTO bun_migrations (name, group_id) VALUES ('20260101000001', 1), ('20260101000002', 1);
