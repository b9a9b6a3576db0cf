-- Types that columns of the corpus have. Some runs make them in the target too, others leave it to find its own way.
CREATE SCHEMA "Odd schema";
CREATE SCHEMA types;
CREATE TYPE types.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE "Odd schema"."Enum type" AS ENUM ('', 'with space', 'with "quotes"', 'with ''one''', 'ünïcode ✓', 'comma,', 'back\slash');
CREATE DOMAIN types.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN types.small_positive AS types.positive CHECK (VALUE < 1000);
CREATE DOMAIN types.code AS varchar(8) NOT NULL DEFAULT 'none' CHECK (VALUE ~ '^[a-z0-9 ]*$');
CREATE DOMAIN types.price AS numeric(10,2);
CREATE DOMAIN types.moody AS types.mood;
CREATE DOMAIN types.int_list AS int[] CHECK (cardinality(VALUE) < 10);
CREATE DOMAIN types.doc AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');
CREATE TYPE types.pair AS (a int, b text);
CREATE TYPE types.nested AS (p types.pair, m types.mood, list int[], "Odd one" numeric);
CREATE DOMAIN types.some_pair AS types.pair CHECK ((VALUE).a < 1000);
CREATE TYPE types.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE types.text_range AS RANGE (subtype = text, collation = "C");
