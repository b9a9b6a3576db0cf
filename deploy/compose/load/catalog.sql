INSERT INTO customers (id, name, email, country)
SELECT n, 'Customer ' || n, 'customer' || n || '@example.com', (ARRAY['DE', 'FR', 'US', 'JP', 'BR'])[1 + n % 5]
FROM generate_series(1, 1000) n
ON CONFLICT DO NOTHING;

INSERT INTO products (id, name, price, stock, tags)
SELECT n, 'Product ' || n, 5 + n % 95, 1000000, ARRAY['tag' || n % 7, 'new']
FROM generate_series(1, 200) n
ON CONFLICT DO NOTHING;
