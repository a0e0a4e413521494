-- Purpose: the page of open orders reads few rows instead of all.
-- Created: 2026-11-23
--
-- CONCURRENTLY lets others go on writing, takes longer, and cannot run in a transaction:
-- the gate recognises it, runs this file outside one, and goes on where it was if it is
-- killed. It stands alone, so that nothing else of the file is left half done.

CREATE INDEX CONCURRENTLY orders_open_idx
    ON orders (ordered_at) WHERE status IN ('placed', 'paid');
