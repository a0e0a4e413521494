-- Purpose: orders from before 002 that cost nothing count as paid.
-- Created: 2026-11-23
--
-- A data migration: its own file, so that its row locks are not held while a table is
-- altered, and a failure leaves the schema of 002 in place.

UPDATE orders SET status = 'paid' WHERE total_cents = 0 AND status = 'placed';

-- Reads the table, while others go on reading and writing.
ALTER TABLE orders VALIDATE CONSTRAINT orders_status_known;
