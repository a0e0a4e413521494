-- Built from the tool's source, not written by the tool: hasura/graphql-engine cli/internal/statestore/statestore.go (config v3)
CREATE SCHEMA hdb_catalog;
CREATE TABLE hdb_catalog.hdb_version (hasura_uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(), version text NOT NULL, upgraded_on timestamptz NOT NULL, cli_state jsonb NOT NULL DEFAULT '{}', console_state jsonb NOT NULL DEFAULT '{}', ee_client_id text, ee_client_secret text);
INSERT INTO hdb_catalog.hdb_version (version, upgraded_on, cli_state) VALUES ('47', now(), '{"settings": {}, "migrations": {"other": null, "default": {"1617000000001": false, "1617000000002": false}}}');
