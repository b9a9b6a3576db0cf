-- Names that have to be quoted, keywords, 63 bytes, bytes that look like escapes; of schemas, tables and columns.
CREATE SCHEMA "select";
CREATE SCHEMA "UPPER";
CREATE TABLE "Table with spaces" ("id" int PRIMARY KEY, "column with spaces" text, "UPPER" int, "lower" int, "Mixed" int);
INSERT INTO "Table with spaces" SELECT n, 'v' || n, n, -n, 0 FROM generate_series(1, 10) n;
UPDATE "Table with spaces" SET "column with spaces" = 'changed', "UPPER" = "lower" WHERE id % 2 = 0;
DELETE FROM "Table with spaces" WHERE id = 3;
CREATE TABLE "quote "" in name" ("a ""quoted"" column" int PRIMARY KEY, "'" text, "`" text, "\" text);
INSERT INTO "quote "" in name" VALUES (1, '''', '`', '\'), (2, '"', '""', '\\'), (3, NULL, '', E'\b\f\n\r\t\v');
UPDATE "quote "" in name" SET "'" = '`"\' WHERE "a ""quoted"" column" = 3;
CREATE TABLE "select"."table" ("from" int, "where" text, "order" bigint, "user" text, "primary" text, PRIMARY KEY ("from", "order"));
INSERT INTO "select"."table" VALUES (1, 'a', 1, 'u', 'p'), (1, 'b', 2, 'u', 'p'), (2, 'c', 1, 'u', 'p');
UPDATE "select"."table" SET "order" = "order" + 10 WHERE "from" = 1;
DELETE FROM "select"."table" WHERE "where" = 'c';
CREATE TABLE "UPPER".t (id int PRIMARY KEY);
CREATE TABLE "UPPER"."T" ("ID" int PRIMARY KEY, id int);
INSERT INTO "UPPER".t VALUES (1); INSERT INTO "UPPER"."T" VALUES (2, 3);
CREATE TABLE "Odd schema"."Ünïcöde ✓ 表" ("schlüssel" int PRIMARY KEY, "значение" text, "値" text, "🙂" text);
INSERT INTO "Odd schema"."Ünïcöde ✓ 表" VALUES (1, 'текст', '値', '🙂'), (2, 'ﬁ', E'e\u0301', E'\u00e9');
UPDATE "Odd schema"."Ünïcöde ✓ 表" SET "🙂" = "🙂" || '🙃' WHERE "schlüssel" = 1;
CREATE TABLE a23456789_123456789_123456789_123456789_123456789_123456789_123 (
    b23456789_123456789_123456789_123456789_123456789_123456789_123 int PRIMARY KEY,
    c23456789_123456789_123456789_123456789_123456789_123456789_123 text,
    "ддддддддддддддддддддддддддддддд" text);
INSERT INTO a23456789_123456789_123456789_123456789_123456789_123456789_123 VALUES (1, 'x', 'y'), (2, 'x', 'y');
UPDATE a23456789_123456789_123456789_123456789_123456789_123456789_123 SET c23456789_123456789_123456789_123456789_123456789_123456789_123 = 'z'
    WHERE b23456789_123456789_123456789_123456789_123456789_123456789_123 = 2;
-- Two names that agree in all but the last byte.
CREATE TABLE a23456789_123456789_123456789_123456789_123456789_123456789_124 (LIKE a23456789_123456789_123456789_123456789_123456789_123456789_123 INCLUDING ALL);
INSERT INTO a23456789_123456789_123456789_123456789_123456789_123456789_124 VALUES (7, 'other', NULL);
CREATE TABLE "a.b" ("c.d" int PRIMARY KEY, "e:f" text, "g/h" text, "i?j" text, "k*l" text, "$1" text, "{x}" text, "%s" text, ";--" text);
INSERT INTO "a.b" VALUES (1, 'a', 'b', 'c', 'd', 'e', 'f', '%s %n', '; DROP TABLE "a.b"; --');
UPDATE "a.b" SET "$1" = '$1', "%s" = '%d' WHERE "c.d" = 1;
CREATE TABLE "0" ("1" int PRIMARY KEY, "2" text); INSERT INTO "0" VALUES (0, '0');
CREATE TABLE " " (" " int PRIMARY KEY, "  " text); INSERT INTO " " VALUES (1, ' ');
CREATE TABLE "_" ("_" int PRIMARY KEY, "__" text); INSERT INTO "_" VALUES (1, 'x');
CREATE TABLE "null" ("true" int PRIMARY KEY, "false" boolean, "null" text, "default" text);
INSERT INTO "null" VALUES (1, true, NULL, 'default'); UPDATE "null" SET "null" = 'null', "false" = NULL;
-- Names that sinks give to columns of their own.
CREATE TABLE like_ours (id int PRIMARY KEY, version int, deleted boolean, "event_id" text, "before" text, "after" text, "key" text, op text);
INSERT INTO like_ours VALUES (1, 1, false, 'e', 'b', 'a', 'k', 'o'); UPDATE like_ours SET deleted = true, "key" = NULL;
CREATE TABLE checkpoint (id int PRIMARY KEY, shard int); INSERT INTO checkpoint VALUES (1, 2);
CREATE TABLE t_current (id int PRIMARY KEY, v text); INSERT INTO t_current VALUES (1, 'a table, no view');
CREATE TABLE "Casę" (id int PRIMARY KEY); CREATE TABLE "casę" (id int PRIMARY KEY);
INSERT INTO "Casę" VALUES (1); INSERT INTO "casę" VALUES (2);
