"""The demo's shop: its tables, what they hold before replication begins, and the programs that write to it."""

TABLES = ["customers", "products", "orders", "purchases"]

SCHEMA = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, country char(2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE products (
    id bigint PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL, stock integer NOT NULL,
    tags text[] NOT NULL DEFAULT '{}');
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL DEFAULT 'open', note text, ordered_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE purchases (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders,
    product_id bigint NOT NULL REFERENCES products, quantity integer NOT NULL, amount numeric(12,2) NOT NULL,
    details jsonb, purchased_at timestamptz NOT NULL DEFAULT now());
"""

# What the shop has sold before anybody replicates it: 220,500 rows.
HISTORY = """
INSERT INTO customers (id, name, email, country)
SELECT n, 'Customer ' || n, 'c' || n || '@example.com', (ARRAY['DE','FR','US','JP','BR'])[1 + n % 5]
FROM generate_series(1, 20000) n;
INSERT INTO products (id, name, price, stock, tags)
SELECT n, 'Product ' || n, round((5 + random() * 95)::numeric, 2), 100000, ARRAY['tag' || n % 7, 'new']
FROM generate_series(1, 500) n;
INSERT INTO orders (customer_id, status, ordered_at)
SELECT 1 + n % 20000, 'paid', now() - n * interval '1 minute' FROM generate_series(1, 80000) n;
INSERT INTO purchases (order_id, product_id, quantity, amount, details, purchased_at)
SELECT 1 + n % 80000, p.id, 1 + n % 5, p.price * (1 + n % 5), jsonb_build_object('price', p.price),
       now() - n * interval '40 seconds'
FROM generate_series(1, 120000) n JOIN products p ON p.id = 1 + n % 500;
ANALYZE;
"""

# One transaction of the load: an order with one purchase, the stock; now and then a cancelled purchase.
LOAD = r"""
\set customer random(1, 20000)
\set product random(1, 500)
\set quantity random(1, 5)
\set cancel random(1, 20)
BEGIN;
WITH o AS (INSERT INTO orders (customer_id) VALUES (:customer) RETURNING id)
INSERT INTO purchases (order_id, product_id, quantity, amount, details)
SELECT o.id, p.id, :quantity, p.price * :quantity, jsonb_build_object('price', p.price)
FROM o, products p WHERE p.id = :product;
UPDATE products SET stock = stock - :quantity WHERE id = :product;
UPDATE orders SET status = 'paid' WHERE id = (SELECT max(id) FROM orders WHERE status = 'open');
\if :cancel = 1
DELETE FROM purchases WHERE id = (SELECT max(id) - 500 FROM purchases);
\endif
COMMIT;
"""

# Comes while the load runs. Every row that is there gets the default, which Postgres keeps in its catalog: no row is
# written, and none comes in the stream.
NEW_COLUMN = "ALTER TABLE purchases ADD COLUMN channel text NOT NULL DEFAULT 'web'"

# The next version of the shop's program, which knows the column, beside the old one, which does not: new purchases, and
# old ones that somebody has looked up.
NEW_LOAD = r"""
\set product random(1, 500)
\set channel random(1, 2)
\set old random(1, 120000)
BEGIN;
INSERT INTO purchases (order_id, product_id, quantity, amount, channel)
SELECT (SELECT max(id) FROM orders), p.id, 1, p.price, (ARRAY['app','phone'])[:channel]
FROM products p WHERE p.id = :product;
UPDATE purchases SET channel = 'counter' WHERE id = :old;
COMMIT;
"""

# What of each table is compared at the end, row by row: columns that all three kinds of sink write alike as text.
COMPARED = {
    "customers": ["id", "name", "email", "country"],
    "products": ["id", "name", "price", "stock"],
    "orders": ["id", "customer_id", "status"],
    "purchases": ["id", "order_id", "product_id", "quantity", "amount", "channel"],
}
