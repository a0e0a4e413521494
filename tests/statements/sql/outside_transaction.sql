-- gate: no-transaction
SET lock_timeout = '2s'; SET search_path TO shop, "$user", public;
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "Orders;open"
    ON ONLY shop.orders USING btree (lower(note || ';')) WHERE state = 'open;';
DROP INDEX CONCURRENTLY IF EXISTS shop.old_one;
REINDEX (VERBOSE, CONCURRENTLY) TABLE shop.orders;
VACUUM (ANALYZE, PARALLEL 2) shop.orders (id, note);
ALTER TABLE IF EXISTS ONLY shop.orders DETACH PARTITION shop.orders_2024 CONCURRENTLY;
DO $do$ BEGIN EXECUTE $sql$ SELECT ';'; $sql$; COMMIT; END $do$;
CLUSTER VERBOSE;
ALTER SYSTEM SET work_mem = '64MB';
BEGIN ISOLATION LEVEL SERIALIZABLE; SAVEPOINT s; ROLLBACK TO s; COMMIT AND NO CHAIN;
