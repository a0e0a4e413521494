-- Purpose: an order says where it is.
-- Created: 2026-11-23
--
-- The application that still runs knows nothing of the column: it must go on inserting
-- orders, so the column has a default. A constant default rewrites no table.
-- 002_order_status.down.sql is for the command rollback, which a person gives.

ALTER TABLE orders ADD COLUMN status text NOT NULL DEFAULT 'placed';

-- A CHECK instead of an ENUM: a value can be removed again later. NOT VALID, because
-- every row has the default: the check holds for new rows at once, without reading the
-- old ones under a lock that stops all writing. The next file validates it.
ALTER TABLE orders
    ADD CONSTRAINT orders_status_known
    CHECK (status IN ('placed', 'paid', 'shipped', 'cancelled')) NOT VALID;
