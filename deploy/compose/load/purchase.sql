\set customer random(1, 1000)
\set product random(1, 200)
\set quantity random(1, 5)
\set cancels random(1, 20)
BEGIN;
WITH new_order AS (INSERT INTO orders (customer_id, status) VALUES (:customer, 'paid') RETURNING id)
INSERT INTO purchases (order_id, product_id, quantity, amount, details)
SELECT new_order.id, product.id, :quantity, product.price * :quantity, jsonb_build_object('channel', 'web')
FROM new_order, products product WHERE product.id = :product;
UPDATE products SET stock = stock - :quantity WHERE id = :product;
\if :cancels = 1
DELETE FROM purchases WHERE id = (SELECT max(id) - 500 FROM purchases);
\endif
COMMIT;
