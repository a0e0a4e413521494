-- Purpose: customers and their orders, as the shop starts.
-- Created: 2026-11-23
--
-- Runs in one transaction with its history row: it is applied as a whole or not at all.

-- gen_random_uuid() is built in: no extension to install, and none to be refused by a
-- managed server.
CREATE TABLE customers (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL,
    email      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The application looks customers up by what they typed, in any case.
CREATE UNIQUE INDEX customers_email_key ON customers (lower(email));

CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id uuid NOT NULL REFERENCES customers (id),
    -- Cents, because a sum of money must not be rounded.
    total_cents bigint NOT NULL CHECK (total_cents >= 0),
    ordered_at  timestamptz NOT NULL DEFAULT now()
);

-- A foreign key does not index its own column; without this, deleting a customer reads
-- every order.
CREATE INDEX orders_customer_id_idx ON orders (customer_id);
