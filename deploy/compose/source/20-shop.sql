-- A small shop. Its rows come by the load; what is there before the replicator starts is copied.
CREATE TABLE customers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    country char(2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE products (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    price numeric(10,2) NOT NULL,
    stock integer NOT NULL,
    tags text[] NOT NULL DEFAULT '{}');

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL DEFAULT 'open',
    note text,
    ordered_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE purchases (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders,
    product_id bigint NOT NULL REFERENCES products,
    quantity integer NOT NULL,
    amount numeric(12,2) NOT NULL,
    details jsonb,
    purchased_at timestamptz NOT NULL DEFAULT now());

-- Made here, by a superuser, so that tables made later belong to it too.
CREATE PUBLICATION replicator FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true);
