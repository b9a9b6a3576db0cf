-- Ways in which rows change: conflicts, merges, writing CTEs, COPY, subtransactions, prepared transactions, TOAST.
CREATE SCHEMA rows;
SET search_path = rows, public;
CREATE TABLE upserts (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, v text UNIQUE);
INSERT INTO upserts SELECT n, 0, 'v' || n FROM generate_series(1, 10) n;
INSERT INTO upserts SELECT n, 1, 'w' || n FROM generate_series(5, 15) n ON CONFLICT (id) DO UPDATE SET n = upserts.n + excluded.n, v = excluded.v WHERE upserts.id <> 7;
INSERT INTO upserts VALUES (1, 9, 'x'), (99, 9, 'v2') ON CONFLICT DO NOTHING;
INSERT INTO upserts VALUES (3, 5, 'zzz') ON CONFLICT (id) DO UPDATE SET id = 300 RETURNING *;
CREATE TABLE merged (id int PRIMARY KEY, v text, n int);
INSERT INTO merged SELECT n, 'old', n FROM generate_series(1, 10) n;
MERGE INTO merged t USING (SELECT n AS id, 'new' AS v FROM generate_series(5, 14) n) s ON t.id = s.id
    WHEN MATCHED AND t.id = 6 THEN DELETE WHEN MATCHED AND t.id = 7 THEN DO NOTHING
    WHEN MATCHED THEN UPDATE SET v = s.v, id = t.id + 100 WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, -1);
SELECT current_setting('server_version_num')::int >= 170000 AS is_17 \gset
\if :is_17
MERGE INTO merged t USING (VALUES (11, 'seen')) s (id, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v
    WHEN NOT MATCHED BY SOURCE AND t.id < 3 THEN DELETE WHEN NOT MATCHED BY SOURCE THEN UPDATE SET n = 0;
\endif
CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(12,2));
CREATE TABLE transfers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source int, target int, amount numeric(12,2));
INSERT INTO accounts SELECT n, 'o' || n, 100 FROM generate_series(1, 10) n;
INSERT INTO transfers (source, target, amount) SELECT n, n % 10 + 1, n FROM generate_series(1, 10) n;
UPDATE accounts a SET balance = balance - t.amount FROM transfers t WHERE t.source = a.id;
DELETE FROM accounts a USING transfers t WHERE t.target = a.id AND t.amount > 9;
WITH gone AS (DELETE FROM transfers WHERE amount < 4 RETURNING *), moved AS (UPDATE accounts SET owner = 'moved' WHERE id IN (SELECT source FROM gone) RETURNING id)
    INSERT INTO transfers (source, target, amount) SELECT id, 0, 0.5 FROM moved;
CREATE TABLE copied (id int PRIMARY KEY, a text, b numeric, c boolean, d text[]);
COPY copied FROM STDIN;
1	plain	1.50	t	{a,b}
2	tab\there and \\N	\N	f	{}
3	\N	-0.0	\N	\N
4	line\nbreak \\ back	1e10	t	{"a\\"b",NULL}
5		0	f	{""}
\.
COPY copied (id, a) FROM STDIN WITH (DELIMITER ',', NULL 'nil');
6,with \, comma
7,nil
8,
9,two\
lines
\.
UPDATE copied SET a = a || a WHERE id IN (2, 4, 6);
-- Subtransactions, kept and not.
CREATE TABLE savepoints (id int PRIMARY KEY, v text);
BEGIN;
INSERT INTO savepoints VALUES (1, 'kept');
SAVEPOINT a; INSERT INTO savepoints VALUES (2, 'not kept'); UPDATE savepoints SET v = 'not' WHERE id = 1;
SAVEPOINT b; INSERT INTO savepoints VALUES (3, 'not kept either'); RELEASE b;
ROLLBACK TO a; INSERT INTO savepoints VALUES (2, 'kept now');
SAVEPOINT c; INSERT INTO savepoints VALUES (4, 'kept'); SAVEPOINT d; DELETE FROM savepoints WHERE id = 1; ROLLBACK TO d; RELEASE c;
COMMIT;
BEGIN; INSERT INTO savepoints VALUES (10, 'never'); TRUNCATE savepoints; ROLLBACK;
DO $$ BEGIN
  FOR i IN 20..60 LOOP
    BEGIN
      INSERT INTO rows.savepoints VALUES (i, 'loop');
      IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL; END;
  END LOOP;
END $$;
CREATE PROCEDURE in_pieces() LANGUAGE plpgsql AS $$ BEGIN
  FOR i IN 100..110 LOOP INSERT INTO rows.savepoints VALUES (i, 'p'); IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP; END $$;
CALL in_pieces();
-- Prepared transactions.
CREATE TABLE prepared (id int PRIMARY KEY, v text);
BEGIN; INSERT INTO prepared VALUES (1, 'prepared'); PREPARE TRANSACTION 'corpus it''s one';
INSERT INTO prepared VALUES (2, 'meanwhile');
BEGIN; INSERT INTO prepared VALUES (3, 'to be rolled back'); PREPARE TRANSACTION 'corpus 2';
COMMIT PREPARED 'corpus it''s one'; ROLLBACK PREPARED 'corpus 2';
UPDATE prepared SET v = v || '!';
-- Values out of line that are not sent again.
CREATE TABLE toasted (id int PRIMARY KEY, big text, other_big bytea, n int);
INSERT INTO toasted SELECT n, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 400) m), decode((SELECT string_agg(md5(m::text || n), '') FROM generate_series(1, 400) m), 'hex'), 0
    FROM generate_series(1, 10) n;
UPDATE toasted SET n = n + 1; UPDATE toasted SET id = id + 100 WHERE id < 4; UPDATE toasted SET big = 'short' WHERE id = 5;
UPDATE toasted SET big = repeat(big, 3) WHERE id = 6; UPDATE toasted SET other_big = NULL, n = 7 WHERE id = 7;
BEGIN; UPDATE toasted SET n = 50 WHERE id = 101; UPDATE toasted SET id = 201 WHERE id = 101; UPDATE toasted SET n = 51 WHERE id = 201; COMMIT;
BEGIN; INSERT INTO toasted SELECT 300, big, other_big, 0 FROM toasted WHERE id = 8; UPDATE toasted SET n = 1 WHERE id = 300; DELETE FROM toasted WHERE id = 8; COMMIT;
CREATE TABLE toasted_full (LIKE toasted INCLUDING ALL); ALTER TABLE toasted_full REPLICA IDENTITY FULL;
INSERT INTO toasted_full SELECT * FROM toasted; UPDATE toasted_full SET n = -1 WHERE id > 100; DELETE FROM toasted_full WHERE id = 9;
CREATE TABLE toasted_key (k text PRIMARY KEY, big text, n int);
ALTER TABLE toasted_key ALTER big SET STORAGE EXTERNAL;
INSERT INTO toasted_key SELECT 'k' || n, repeat('x', 5000) || n, 0 FROM generate_series(1, 5) n; UPDATE toasted_key SET k = k || '!' WHERE k > 'k2'; UPDATE toasted_key SET n = 1;
-- Keys that go round, shift and swap.
CREATE TABLE shifting (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text); ALTER TABLE shifting REPLICA IDENTITY FULL;
INSERT INTO shifting SELECT n, 'v' || n FROM generate_series(1, 10) n; UPDATE shifting SET id = id + 1; UPDATE shifting SET id = 21 - id;
CREATE TABLE swapping (id int PRIMARY KEY, v text); INSERT INTO swapping VALUES (1, 'one'), (2, 'two');
BEGIN; UPDATE swapping SET id = -1 WHERE id = 1; UPDATE swapping SET id = 1 WHERE id = 2; UPDATE swapping SET id = 2 WHERE id = -1; COMMIT;
-- Rows without a key: a multiset.
CREATE TABLE logged (at timestamptz, line text); INSERT INTO logged SELECT '2026-01-01', 'same' FROM generate_series(1, 5); INSERT INTO logged VALUES (NULL, NULL), (NULL, NULL);
CREATE TABLE duplicates (a int, b text); ALTER TABLE duplicates REPLICA IDENTITY FULL;
INSERT INTO duplicates SELECT n % 3, 'same' FROM generate_series(1, 12) n; INSERT INTO duplicates VALUES (NULL, NULL), (NULL, NULL);
DELETE FROM duplicates WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE a = 1); UPDATE duplicates SET b = 'changed' WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE a = 2);
DELETE FROM duplicates WHERE ctid = (SELECT min(ctid) FROM duplicates WHERE a IS NULL);
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES;
-- TRUNCATE in all ways.
CREATE TABLE truncated (id serial PRIMARY KEY, v text); CREATE TABLE truncated_too (id serial PRIMARY KEY, of int REFERENCES truncated);
INSERT INTO truncated (v) VALUES ('a'), ('b'); INSERT INTO truncated_too (of) VALUES (1); TRUNCATE truncated CASCADE; INSERT INTO truncated (v) VALUES ('c');
TRUNCATE truncated, truncated_too RESTART IDENTITY; INSERT INTO truncated (v) VALUES ('d'); INSERT INTO truncated_too (of) VALUES (1);
BEGIN; INSERT INTO truncated (v) VALUES ('e'); TRUNCATE truncated_too CONTINUE IDENTITY; INSERT INTO truncated_too (of) VALUES (2); SAVEPOINT s; TRUNCATE truncated CASCADE; ROLLBACK TO s; COMMIT;
BEGIN; CREATE TABLE born_and_truncated (id int PRIMARY KEY); INSERT INTO born_and_truncated VALUES (1); TRUNCATE born_and_truncated; INSERT INTO born_and_truncated VALUES (2); COMMIT;
CREATE TABLE many_at_once (id int PRIMARY KEY, v text);
INSERT INTO many_at_once SELECT n, md5(n::text) FROM generate_series(1, 5000) n; UPDATE many_at_once SET v = upper(v) WHERE id % 7 = 0; DELETE FROM many_at_once WHERE id % 11 = 0;
RESET search_path;
