-- A table for each type, with its edges; keys of odd types; then values that users' types take.
SET timezone = 'UTC';
DO $corpus$
DECLARE one record;
BEGIN
  FOR one IN SELECT * FROM (VALUES
    ('boolean', ARRAY['true', 'false']), ('smallint', ARRAY['-32768', '32767']), ('integer', ARRAY['-2147483648', '2147483647']),
    ('bigint', ARRAY['-9223372036854775808', '9223372036854775807']),
    ('numeric', ARRAY['0', '-0.000', 'NaN', 'Infinity', '-Infinity', '1e-40', repeat('9', 300) || '.' || repeat('1', 300)]),
    ('numeric(10,2)', ARRAY['99999999.99', '-0.01', '1']), ('numeric(5,0)', ARRAY['12345']), ('numeric(3,5)', ARRAY['0.00999']), ('numeric(3,-2)', ARRAY['12300']),
    ('real', ARRAY['1e-45', '3.4028235e38', 'NaN', 'Infinity', '-Infinity', '-0', '0.1']),
    ('double precision', ARRAY['5e-324', '1.7976931348623157e308', 'NaN', '-Infinity', '-0', '0.1']),
    ('money', ARRAY['-92233720368547758.08', '12.34']),
    ('text', ARRAY['', ' ', '\N', 'NULL', E'a\tb\nc\\', 'ünïcode ✓ 表 🙂']), ('varchar(5)', ARRAY['', '12345', 'ünïc ']), ('char(5)', ARRAY['', 'ab', '12345']),
    ('name', ARRAY['a name']), ('"char"', ARRAY['x', '']), ('bytea', ARRAY['', '\x00', '\x000102fffe5c27']),
    ('date', ARRAY['0001-01-01', '4713-01-01 BC', '5874897-12-31', 'infinity', '-infinity', '2024-02-29']),
    ('time', ARRAY['00:00:00', '24:00:00', '23:59:59.999999']), ('timetz', ARRAY['00:00:00+15:59', '24:00:00-15:59', '12:34:56.7+02']),
    ('time(3)', ARRAY['23:59:59.9994']),
    ('timestamp', ARRAY['4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999', 'infinity', '-infinity', '1969-12-31 23:59:59.999999']),
    ('timestamptz', ARRAY['4713-01-02 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00', 'infinity', '2026-03-29 02:30:00+01']),
    ('timestamp(0)', ARRAY['2026-01-01 00:00:00']), ('timestamptz(3)', ARRAY['2026-01-01 00:00:00.123+00']),
    ('interval', ARRAY['0', '1 year 2 mons -3 days 04:05:06.789', '-178000000 years', '1 day -00:00:00.000001']), ('interval year to month', ARRAY['1 year 2 mons']),
    ('uuid', ARRAY['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']),
    ('json', ARRAY['{"a" : 1,  "a": 2}', '[1, 2.50, 1e400]', '"\u0000"', 'null', '""']), ('jsonb', ARRAY['{"a": {"b": [1, 2.50, null]}}', '123456789012345678901234567890', 'null']),
    ('jsonpath', ARRAY['$.a[*] ? (@ > 1)']), ('xml', ARRAY['<a b="c">d</a>', 'text']),
    ('inet', ARRAY['10.0.0.1/8', '::1', '255.255.255.255']), ('cidr', ARRAY['10.0.0.0/8', '2001:db8::/32']), ('macaddr', ARRAY['08:00:2b:01:02:03']), ('macaddr8', ARRAY['08:00:2b:01:02:03:04:05']),
    ('bit(5)', ARRAY['10101', '00000']), ('bit varying(9)', ARRAY['', '1', '101010101']), ('bit varying', ARRAY['', repeat('10', 100)]),
    ('point', ARRAY['(1,-2.5)', '(Infinity,NaN)']), ('line', ARRAY['{1,-1,0}']), ('lseg', ARRAY['[(0,0),(1,1)]']), ('box', ARRAY['(1,1),(0,0)']),
    ('path', ARRAY['[(0,0),(1,1)]', '((0,0),(1,1),(2,0))']), ('polygon', ARRAY['((0,0),(1,1),(2,0))']), ('circle', ARRAY['<(0,0),5>']),
    ('tsvector', ARRAY['', '''fat'':2 ''rat'':3A', 'a:1,2 b']), ('tsquery', ARRAY['fat & !rat', 'super:*']),
    ('pg_lsn', ARRAY['0/0', 'FFFFFFFF/FFFFFFFF']), ('oid', ARRAY['0', '4294967295']), ('xid', ARRAY['4294967295']), ('xid8', ARRAY['18446744073709551615']), ('tid', ARRAY['(0,1)']),
    ('txid_snapshot', ARRAY['10:20:10,14']), ('pg_snapshot', ARRAY['10:20:10,14']), ('oidvector', ARRAY['1 2 3']), ('int2vector', ARRAY['1 2']),
    ('int4range', ARRAY['empty', '[1,5)', '(,)', '[3,)']), ('int8range', ARRAY['[1,9223372036854775807)']), ('numrange', ARRAY['(1.50,2.5]', 'empty']),
    ('daterange', ARRAY['[2026-01-01,infinity)']), ('tsrange', ARRAY['["2026-01-01 00:00","2026-01-02 00:00")']), ('tstzrange', ARRAY['(,"2026-01-02 00:00+00"]']),
    ('int4multirange', ARRAY['{}', '{[1,3),[5,9)}']), ('datemultirange', ARRAY['{[2026-01-01,2026-02-01)}']), ('nummultirange', ARRAY['{[1.5,2.0]}']),
    ('integer[]', ARRAY['{}', '{1,NULL,3}', '{{1,2},{3,4}}', '[0:1]={5,6}', '[-2:-1][3:4]={{1,2},{3,4}}']), ('text[]', ARRAY['{}', '{"",NULL,"NULL","a,b","\"q\"","back\\slash"," "}']),
    ('boolean[]', ARRAY['{t,f,NULL}']), ('numeric(8,2)[]', ARRAY['{1.5,NULL,NaN}']), ('timestamptz[]', ARRAY['{"2026-01-01 00:00+00",infinity}']),
    ('bytea[]', ARRAY['{"\\x00","\\xff"}']), ('uuid[]', ARRAY['{00000000-0000-0000-0000-000000000000}']), ('jsonb[]', ARRAY['{"{\"a\": 1}",null}']), ('box[]', ARRAY['{(1,1),(0,0);(2,2),(0,0)}']),
    ('int4range[]', ARRAY['{"[1,5)",empty}']), ('varchar(3)[]', ARRAY['{abc,d}']), ('interval[]', ARRAY['{"1 day",00:00:01}']), ('regclass', ARRAY['pg_class']), ('regtype', ARRAY['integer']),
    ('types.mood', ARRAY['sad', 'happy']), ('"Odd schema"."Enum type"', ARRAY['', 'with space', 'with "quotes"', 'with ''one''', 'ünïcode ✓', 'comma,', 'back\slash']),
    ('types.mood[]', ARRAY['{}', '{sad,NULL,happy}']), ('"Odd schema"."Enum type"[]', ARRAY['{"","with space","with \"quotes\"","comma,","back\\slash"}']),
    ('types.positive', ARRAY['1', '2147483647']), ('types.small_positive', ARRAY['1', '999']), ('types.price', ARRAY['1.5']), ('types.moody', ARRAY['ok']), ('types.int_list', ARRAY['{1,2}', '{}']),
    ('types.positive[]', ARRAY['{1,2}']), ('types.doc', ARRAY['{"a": 1}']), ('types.pair', ARRAY['(1,"a ""b"" , c")', '(,)', '(1,"")']), ('types.nested', ARRAY['("(1,x)",sad,"{1,2}",1.50)', '(,,,)']),
    ('types.pair[]', ARRAY['{"(1,a)",NULL,"(,)"}']), ('types.some_pair', ARRAY['(1,)']), ('types.float_range', ARRAY['[1.5,2.5)']), ('types.text_range', ARRAY['[a,"b c")', 'empty'])
  ) AS types (type_name, examples)
  LOOP
    EXECUTE format('CREATE TABLE types.%I (id serial PRIMARY KEY, v %s, unchanged text)', 'of ' || one.type_name, one.type_name);
    EXECUTE format('INSERT INTO types.%I (v, unchanged) SELECT x::%s, %L FROM unnest($1) x', 'of ' || one.type_name, one.type_name, 'u') USING one.examples;
    EXECUTE format('INSERT INTO types.%I (v) VALUES (NULL), (NULL)', 'of ' || one.type_name);
    -- A value gone, one come, one moved to another row.
    EXECUTE format('UPDATE types.%I SET v = NULL WHERE id = 1', 'of ' || one.type_name);
    EXECUTE format('UPDATE types.%I SET v = $1::%s WHERE id = (SELECT max(id) FROM types.%1$I)', 'of ' || one.type_name, one.type_name) USING one.examples[1];
    EXECUTE format('UPDATE types.%I SET id = id + 1000 WHERE id = 2', 'of ' || one.type_name);
  END LOOP;
END $corpus$;

-- Keys of many types; equal ones of other spelling.
CREATE TABLE types."key of numeric" (k numeric PRIMARY KEY, v text);
INSERT INTO types."key of numeric" VALUES (1.0, 'a'), (2.50, 'b'), ('NaN', 'c'), ('Infinity', 'd');
UPDATE types."key of numeric" SET v = v || '!' WHERE k = 1; UPDATE types."key of numeric" SET k = 2.5 WHERE k = 2.5; DELETE FROM types."key of numeric" WHERE k = 'NaN';
CREATE TABLE types."key of float8" (k float8 PRIMARY KEY, v text);
INSERT INTO types."key of float8" VALUES (0.1, 'a'), (-0.0, 'b'), ('NaN', 'c'), ('Infinity', 'd');
UPDATE types."key of float8" SET v = 'zero' WHERE k = 0; DELETE FROM types."key of float8" WHERE k = 'NaN';
CREATE TABLE types."key of bytea" (k bytea PRIMARY KEY, v text);
INSERT INTO types."key of bytea" VALUES ('', 'a'), ('\x00', 'b'), ('\x0000', 'c'); UPDATE types."key of bytea" SET v = 'x' WHERE k = '\x00'; DELETE FROM types."key of bytea" WHERE k = '';
CREATE TABLE types."key of char" (k char(4) PRIMARY KEY, v text);
INSERT INTO types."key of char" VALUES ('a', '1'), ('b  ', '2'); UPDATE types."key of char" SET v = '3' WHERE k = 'a   '; DELETE FROM types."key of char" WHERE k = 'b';
CREATE TABLE types."key of many" (a uuid, b timestamptz, c types.mood, d inet, e text[], v int, PRIMARY KEY (a, b, c, d, e));
INSERT INTO types."key of many" SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-01-01'::timestamptz + n * interval '1 us', 'ok', '10.0.0.1', ARRAY['x', n::text], n FROM generate_series(1, 10) n;
UPDATE types."key of many" SET v = -v WHERE v % 2 = 0; UPDATE types."key of many" SET c = 'sad', e = e || 'y'::text WHERE v = 3; DELETE FROM types."key of many" WHERE v = 5;
CREATE TABLE types."key of interval" (k interval PRIMARY KEY, v int);
INSERT INTO types."key of interval" VALUES ('1 mon', 1), ('2 hours', 2); UPDATE types."key of interval" SET v = 10 WHERE k = '30 days'; DELETE FROM types."key of interval" WHERE k = '120 min';
CREATE TABLE types."key of jsonb" (k jsonb PRIMARY KEY, v int);
INSERT INTO types."key of jsonb" VALUES ('{"a": 1}', 1), ('[1.0]', 2), ('[1.5]', 3); UPDATE types."key of jsonb" SET v = 20 WHERE k = '[1]'; DELETE FROM types."key of jsonb" WHERE k = '{"a":1}';
CREATE TABLE types."key of range" (k int4range PRIMARY KEY, v int);
INSERT INTO types."key of range" VALUES ('[1,5)', 1), ('empty', 2); UPDATE types."key of range" SET v = 3 WHERE k = '[1,4]'; DELETE FROM types."key of range" WHERE isempty(k);
CREATE TABLE types."key of domain" (k types.small_positive PRIMARY KEY, c types.code, v int);
INSERT INTO types."key of domain" (k, v) VALUES (1, 1), (2, 2); UPDATE types."key of domain" SET c = 'x y', k = 3 WHERE k = 1;
CREATE COLLATION types.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE types."key without case" (k text COLLATE types.ci PRIMARY KEY, v int);
INSERT INTO types."key without case" VALUES ('Word', 1), ('other', 2); UPDATE types."key without case" SET v = 3 WHERE k = 'WORD'; UPDATE types."key without case" SET k = 'WORD' WHERE k = 'word';
-- Values come that the types did not have.
ALTER TYPE types.mood ADD VALUE 'furious' BEFORE 'sad';
ALTER TYPE types.mood ADD VALUE IF NOT EXISTS 'it''s "odd", {really}';
INSERT INTO types."of types.mood" (v) VALUES ('furious'), ('it''s "odd", {really}');
INSERT INTO types."of types.mood[]" (v) VALUES ('{furious,NULL,sad}'), (ARRAY['it''s "odd", {really}']::types.mood[]);
INSERT INTO types."of types.moody" (v) VALUES ('furious');
ALTER DOMAIN types.small_positive DROP CONSTRAINT small_positive_check;
INSERT INTO types."of types.small_positive" (v) VALUES (5);
