-- Undoes 002_order_status.up.sql; loses every status that was set since.
-- Run it by hand, then delete the row from schema_migrations:
--     DELETE FROM schema_migrations WHERE version = '002_order_status.up.sql';

ALTER TABLE orders DROP COLUMN status;
