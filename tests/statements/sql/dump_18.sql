--
-- PostgreSQL database dump
--

\restrict v1Fhonarr9mMI1X8kUj4yjQB91r1F4ASq1lj2Jb1fGBTLsd829Q8jtWFi82GqhT

-- Dumped from database version 18.6 (Debian 18.6-3)
-- Dumped by pg_dump version 18.6 (Debian 18.6-3)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: shop; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA shop;


ALTER SCHEMA shop OWNER TO postgres;

--
-- Name: pgcrypto; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;


--
-- Name: EXTENSION pgcrypto; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION pgcrypto IS 'cryptographic functions';


--
-- Name: email; Type: DOMAIN; Schema: shop; Owner: postgres
--

CREATE DOMAIN shop.email AS text
	CONSTRAINT email_check CHECK ((VALUE ~ '^[^@;]+@[^@;]+$'::text));


ALTER DOMAIN shop.email OWNER TO postgres;

--
-- Name: state; Type: TYPE; Schema: shop; Owner: postgres
--

CREATE TYPE shop.state AS ENUM (
    'open',
    'paid; sent',
    'it''s back'
);


ALTER TYPE shop.state OWNER TO postgres;

SET default_tablespace = '';

--
-- Name: orders; Type: TABLE; Schema: shop; Owner: postgres
--

CREATE TABLE shop.orders (
    id bigint NOT NULL,
    customer_id bigint NOT NULL,
    state shop.state DEFAULT 'open'::shop.state NOT NULL,
    total numeric(12,2),
    made_on date NOT NULL,
    CONSTRAINT orders_total_check CHECK (((total >= (0)::numeric) AND (total <> (13)::numeric)))
)
PARTITION BY RANGE (made_on);


ALTER TABLE shop.orders OWNER TO postgres;

--
-- Name: close_all(date); Type: PROCEDURE; Schema: shop; Owner: postgres
--

CREATE PROCEDURE shop.close_all(IN day date)
    LANGUAGE sql
    BEGIN ATOMIC
 UPDATE shop.orders SET state = 'paid; sent'::shop.state
   WHERE (orders.made_on < close_all.day);
 DELETE FROM shop.orders
   WHERE ((orders.total = (0)::numeric) AND (orders.made_on < close_all.day));
END;


ALTER PROCEDURE shop.close_all(IN day date) OWNER TO postgres;

--
-- Name: total_of(bigint); Type: FUNCTION; Schema: shop; Owner: postgres
--

CREATE FUNCTION shop.total_of(customer bigint) RETURNS numeric
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (count(*) > 0) THEN sum(orders.total)
             ELSE (0)::numeric
         END AS "end"
    FROM shop.orders
   WHERE (orders.customer_id = total_of.customer);
END;


ALTER FUNCTION shop.total_of(customer bigint) OWNER TO postgres;

--
-- Name: touch(); Type: FUNCTION; Schema: shop; Owner: postgres
--

CREATE FUNCTION shop.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    -- a ' quote in a comment; and a "name
    IF NEW.email LIKE '%;%' THEN
        RAISE EXCEPTION 'no; %', $x$nested ; quote$x$;
    END IF;
    RETURN NEW;
END;
$_$;


ALTER FUNCTION shop.touch() OWNER TO postgres;

--
-- Name: <->; Type: OPERATOR; Schema: shop; Owner: postgres
--

CREATE OPERATOR shop.<-> (
    FUNCTION = textcat,
    LEFTARG = text,
    RIGHTARG = text
);


ALTER OPERATOR shop.<-> (text, text) OWNER TO postgres;

SET default_table_access_method = heap;

--
-- Name: customers; Type: TABLE; Schema: shop; Owner: postgres
--

CREATE TABLE shop.customers (
    id bigint NOT NULL,
    email shop.email NOT NULL,
    "full name; quoted" text DEFAULT 'a\b;''c'::text NOT NULL,
    notes text[] DEFAULT '{;,''}'::text[],
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE shop.customers OWNER TO postgres;

--
-- Name: TABLE customers; Type: COMMENT; Schema: shop; Owner: postgres
--

COMMENT ON TABLE shop.customers IS 'Who buys; -- and /* why */ \ $$';


--
-- Name: customers_id_seq; Type: SEQUENCE; Schema: shop; Owner: postgres
--

ALTER TABLE shop.customers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME shop.customers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: inbox; Type: VIEW; Schema: shop; Owner: postgres
--

CREATE VIEW shop.inbox AS
 SELECT email
   FROM shop.customers;


ALTER VIEW shop.inbox OWNER TO postgres;

--
-- Name: orders_2025; Type: TABLE; Schema: shop; Owner: postgres
--

CREATE TABLE shop.orders_2025 (
    id bigint CONSTRAINT orders_id_not_null NOT NULL,
    customer_id bigint CONSTRAINT orders_customer_id_not_null NOT NULL,
    state shop.state DEFAULT 'open'::shop.state CONSTRAINT orders_state_not_null NOT NULL,
    total numeric(12,2),
    made_on date CONSTRAINT orders_made_on_not_null NOT NULL,
    CONSTRAINT orders_total_check CHECK (((total >= (0)::numeric) AND (total <> (13)::numeric)))
);


ALTER TABLE shop.orders_2025 OWNER TO postgres;

--
-- Name: orders_id_seq; Type: SEQUENCE; Schema: shop; Owner: postgres
--

ALTER TABLE shop.orders ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME shop.orders_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: totals; Type: VIEW; Schema: shop; Owner: postgres
--

CREATE VIEW shop.totals AS
 SELECT c.email,
        CASE
            WHEN (sum(o.total) > (100)::numeric) THEN 'a;b'::text
            ELSE 'c'::text
        END AS kind,
    sum(o.total) AS "end"
   FROM (shop.customers c
     JOIN shop.orders o ON ((o.customer_id = c.id)))
  GROUP BY c.email;


ALTER VIEW shop.totals OWNER TO postgres;

--
-- Name: orders_2025; Type: TABLE ATTACH; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop.orders ATTACH PARTITION shop.orders_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');


--
-- Data for Name: customers; Type: TABLE DATA; Schema: shop; Owner: postgres
--

COPY shop.customers (id, email, "full name; quoted", notes, created_at) FROM stdin;
1	o'reilly@example.com	Zoë; \\ "x"	{a,b;c}	2026-11-23 09:13:05.138037+00
2	tab@example.com	a\tb\nc\\.	\N	2026-11-23 09:13:05.138037+00
3	dollar@example.com	$$ ; $a$	{}	2026-11-23 09:13:05.138037+00
\.


--
-- Data for Name: orders_2025; Type: TABLE DATA; Schema: shop; Owner: postgres
--

COPY shop.orders_2025 (id, customer_id, state, total, made_on) FROM stdin;
1	1	open	12.50	2025-03-01
2	2	open	0.00	2025-04-01
\.


--
-- Name: customers_id_seq; Type: SEQUENCE SET; Schema: shop; Owner: postgres
--

SELECT pg_catalog.setval('shop.customers_id_seq', 3, true);


--
-- Name: orders_id_seq; Type: SEQUENCE SET; Schema: shop; Owner: postgres
--

SELECT pg_catalog.setval('shop.orders_id_seq', 2, true);


--
-- Name: 4711; Type: BLOB METADATA; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('4711');

ALTER LARGE OBJECT 4711 OWNER TO postgres;

--
-- Data for Name: 4711; Type: BLOBS; Schema: -; Owner: postgres
--

BEGIN;

SELECT pg_catalog.lo_open('4711', 131072);
SELECT pg_catalog.lowrite(0, '\x01023b27');
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: customers customers_email_key; Type: CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop.customers
    ADD CONSTRAINT customers_email_key UNIQUE (email);


--
-- Name: customers customers_pkey; Type: CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);


--
-- Name: orders orders_pkey; Type: CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id, made_on);


--
-- Name: orders_2025 orders_2025_pkey; Type: CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE ONLY shop.orders_2025
    ADD CONSTRAINT orders_2025_pkey PRIMARY KEY (id, made_on);


--
-- Name: orders_open; Type: INDEX; Schema: shop; Owner: postgres
--

CREATE INDEX orders_open ON ONLY shop.orders USING btree (customer_id) WHERE (state = 'open'::shop.state);


--
-- Name: orders_2025_customer_id_idx; Type: INDEX; Schema: shop; Owner: postgres
--

CREATE INDEX orders_2025_customer_id_idx ON shop.orders_2025 USING btree (customer_id) WHERE (state = 'open'::shop.state);


--
-- Name: orders_2025_customer_id_idx; Type: INDEX ATTACH; Schema: shop; Owner: postgres
--

ALTER INDEX shop.orders_open ATTACH PARTITION shop.orders_2025_customer_id_idx;


--
-- Name: orders_2025_pkey; Type: INDEX ATTACH; Schema: shop; Owner: postgres
--

ALTER INDEX shop.orders_pkey ATTACH PARTITION shop.orders_2025_pkey;


--
-- Name: inbox take; Type: RULE; Schema: shop; Owner: postgres
--

CREATE RULE take AS
    ON INSERT TO shop.inbox DO INSTEAD ( INSERT INTO shop.customers (email)
  VALUES (new.email);

 NOTIFY inbox;
);


--
-- Name: customers touch; Type: TRIGGER; Schema: shop; Owner: postgres
--

CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.touch();


--
-- Name: orders orders_customer_id_fkey; Type: FK CONSTRAINT; Schema: shop; Owner: postgres
--

ALTER TABLE shop.orders
    ADD CONSTRAINT orders_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES shop.customers(id);


--
-- Name: customers own; Type: POLICY; Schema: shop; Owner: postgres
--

CREATE POLICY own ON shop.customers USING (((email)::text = CURRENT_USER));


--
-- PostgreSQL database dump complete
--

\unrestrict v1Fhonarr9mMI1X8kUj4yjQB91r1F4ASq1lj2Jb1fGBTLsd829Q8jtWFi82GqhT

