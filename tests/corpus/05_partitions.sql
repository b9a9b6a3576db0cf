-- Inheritance and partitions of every sort.
CREATE SCHEMA parts;
SET search_path = parts, public;
CREATE TABLE cities (name text PRIMARY KEY, population int); CREATE TABLE capitals (state text, PRIMARY KEY (name)) INHERITS (cities);
INSERT INTO cities VALUES ('A', 1), ('B', 2), ('C', 3); INSERT INTO capitals VALUES ('A', 10, 'AA'), ('D', 11, 'DD');
UPDATE cities SET population = population + 1; UPDATE ONLY cities SET population = 0 WHERE name = 'B'; DELETE FROM cities WHERE name = 'A';
ALTER TABLE cities ADD COLUMN founded date DEFAULT '1900-01-01'; INSERT INTO capitals VALUES ('E', 12, 'EE', '2000-01-01'); UPDATE cities SET founded = '1800-01-01' WHERE name = 'D';
CREATE TABLE own (id int PRIMARY KEY, extra text); CREATE TABLE both_of (extra text, PRIMARY KEY (id)) INHERITS (own); INSERT INTO both_of VALUES (1, 'x'); ALTER TABLE both_of NO INHERIT own; INSERT INTO both_of VALUES (2, 'y'); ALTER TABLE both_of INHERIT own;
TRUNCATE ONLY cities; INSERT INTO cities VALUES ('F', 5);

CREATE TABLE by_list (id int, kind text, v text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE by_list_a PARTITION OF by_list FOR VALUES IN ('a', 'aa'); CREATE TABLE by_list_b PARTITION OF by_list FOR VALUES IN ('b'); CREATE TABLE by_list_rest PARTITION OF by_list DEFAULT;
INSERT INTO by_list SELECT n, CASE n % 4 WHEN 0 THEN 'a' WHEN 1 THEN 'b' WHEN 2 THEN 'aa' ELSE 'z' END, 'v' || n FROM generate_series(1, 40) n;
UPDATE by_list SET v = v || '!' WHERE id % 2 = 0; UPDATE by_list SET kind = 'b' WHERE id IN (4, 8, 3); UPDATE by_list SET kind = 'new' WHERE id = 5; DELETE FROM by_list WHERE id > 35; INSERT INTO by_list_a VALUES (101, 'a', 'into the leaf');
CREATE TABLE by_range (at date NOT NULL, id int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE by_range_2025 PARTITION OF by_range FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); CREATE TABLE by_range_2026 PARTITION OF by_range FOR VALUES FROM ('2026-01-01') TO (MAXVALUE); CREATE TABLE by_range_old PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
INSERT INTO by_range SELECT '2024-06-01'::date + n * 30, n, 'v' || n FROM generate_series(1, 40) n; UPDATE by_range SET at = at + 400 WHERE id < 10; DELETE FROM by_range WHERE id BETWEEN 20 AND 22;
CREATE TABLE by_hash (id bigint PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE by_hash_0 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 0); CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 1); CREATE TABLE by_hash_2 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO by_hash SELECT n, 'v' || n FROM generate_series(1, 60) n; UPDATE by_hash SET id = id + 1000 WHERE id % 10 = 0; DELETE FROM by_hash WHERE id % 7 = 0; INSERT INTO by_hash VALUES (1, 'conflict') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
CREATE TABLE deep (id int, a int, b int, v text, PRIMARY KEY (id, a, b)) PARTITION BY LIST (a);
CREATE TABLE deep_1 PARTITION OF deep FOR VALUES IN (1) PARTITION BY RANGE (b); CREATE TABLE deep_1_low PARTITION OF deep_1 FOR VALUES FROM (0) TO (10); CREATE TABLE deep_1_high PARTITION OF deep_1 FOR VALUES FROM (10) TO (100) PARTITION BY HASH (id);
CREATE TABLE deep_1_high_0 PARTITION OF deep_1_high FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE deep_1_high_1 PARTITION OF deep_1_high FOR VALUES WITH (MODULUS 2, REMAINDER 1); CREATE TABLE deep_2 PARTITION OF deep FOR VALUES IN (2);
INSERT INTO deep SELECT n, n % 2 + 1, n, 'v' || n FROM generate_series(1, 50) n; UPDATE deep SET b = 50 - b WHERE a = 1 AND b < 40; UPDATE deep SET a = 3 - a WHERE id IN (5, 6); DELETE FROM deep WHERE id % 9 = 0;
-- Leaves whose columns have other places, because they were tables before.
CREATE TABLE odd_leaves (id int PRIMARY KEY, a text, b int) PARTITION BY RANGE (id); CREATE TABLE odd_leaf (gone text, b int, dropped int, id int NOT NULL, a text); ALTER TABLE odd_leaf DROP COLUMN gone, DROP COLUMN dropped;
ALTER TABLE odd_leaves ATTACH PARTITION odd_leaf FOR VALUES FROM (0) TO (100); CREATE TABLE straight_leaf PARTITION OF odd_leaves FOR VALUES FROM (100) TO (200);
INSERT INTO odd_leaves SELECT n * 20, 'a' || n, n FROM generate_series(0, 9) n; UPDATE odd_leaves SET id = 199 - id WHERE id = 20; UPDATE odd_leaves SET b = -b WHERE id > 50; DELETE FROM odd_leaves WHERE id IN (40, 140);
ALTER TABLE odd_leaves ADD COLUMN c int DEFAULT 3; INSERT INTO odd_leaves VALUES (1, 'x', 1, 4), (101, 'y', 1, 5); ALTER TABLE odd_leaves RENAME COLUMN a TO renamed; UPDATE odd_leaves SET renamed = 'r' WHERE id = 101;
TRUNCATE by_range; INSERT INTO by_range VALUES ('2026-01-01', 1, 'after the truncate');
-- New, and still empty, when they are attached.
CREATE TABLE by_list_c (LIKE by_list INCLUDING ALL); DELETE FROM by_list_rest WHERE kind = 'c'; ALTER TABLE by_list ATTACH PARTITION by_list_c FOR VALUES IN ('c'); INSERT INTO by_list VALUES (201, 'c', 'attached');
CREATE TABLE full_parts (id int, v text) PARTITION BY RANGE (id); CREATE TABLE full_parts_1 PARTITION OF full_parts FOR VALUES FROM (0) TO (10); CREATE TABLE full_parts_2 PARTITION OF full_parts DEFAULT;
ALTER TABLE full_parts REPLICA IDENTITY FULL; ALTER TABLE full_parts_1 REPLICA IDENTITY FULL; ALTER TABLE full_parts_2 REPLICA IDENTITY FULL;
INSERT INTO full_parts SELECT n, 'v' FROM generate_series(1, 20) n; INSERT INTO full_parts VALUES (1, 'v'); UPDATE full_parts SET id = id + 5 WHERE id BETWEEN 6 AND 8; DELETE FROM full_parts WHERE id > 18;
CREATE TABLE no_leaves (id int PRIMARY KEY) PARTITION BY RANGE (id);
RESET search_path;
