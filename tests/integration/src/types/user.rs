//! Types that users and extensions make.

use super::{Arrays, Case, Json};

/// What makes them, extensions apart.
pub(super) const TYPES: &str = r#"
    CREATE SCHEMA "Odd Schema";
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'so "happy", {yes}', 'ünï', '');
    CREATE TYPE "Odd Schema"."My Enum" AS ENUM ('a b', 'NULL', '\N');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN small_positive AS positive CHECK (VALUE < 100);
    CREATE DOMAIN price AS numeric(12,2);
    CREATE DOMAIN moods AS mood[];
    CREATE DOMAIN numbers AS int[];
    CREATE DOMAIN good_mood AS mood CHECK (VALUE <> 'sad');
    CREATE DOMAIN day AS date;
    CREATE TYPE pair AS (a int, "b c" text);
    CREATE TYPE nested AS (p pair, list pair[], at timestamptz, m mood);
    CREATE DOMAIN nonempty_pair AS pair CHECK ((VALUE).a > 0);
    CREATE TYPE floatrange AS RANGE (subtype = float8, multirange_type_name = floatmultirange);
"#;

pub(super) const CASES: &[Case] = &[
    Case::new("enum", 0, "LowCardinality(String)", &["sad", "ok", "so \"happy\", {yes}", "ünï", ""])
        .sql("mood")
        .not_portable(),
    Case::new("enum_odd", 0, "LowCardinality(String)", &["a b", "NULL", "\\N"])
        .sql("\"Odd Schema\".\"My Enum\"")
        .not_portable(),
    Case::new("domain", 23, "Int32", &["1", "2147483647"]).sql("positive").json(Json::Integer).not_portable(),
    Case::new("domain_of_domain", 23, "Int32", &["1", "99"])
        .sql("small_positive")
        .json(Json::Integer)
        .not_portable(),
    Case::new("domain_of_numeric", 1700, "Decimal(12, 2)", &["1.50", "NaN"])
        .sql("price")
        .misfits(&[("NaN", "NULL")])
        .not_portable(),
    Case::new("domain_of_date", 1082, "Date32", &["2024-02-29", "infinity"])
        .sql("day")
        .misfits(&[("infinity", "2299-12-31")])
        .not_portable(),
    Case::new("domain_of_enum", 0, "LowCardinality(String)", &["ok", "ünï"]).sql("good_mood").not_portable(),
    Case::new(
        "domain_of_array",
        0,
        "Array(Nullable(Int32))",
        &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={5,6}"],
    )
    .sql("numbers")
    .not_portable()
    .arrays(Arrays::Text),
    Case::new(
        "domain_of_enum_array",
        0,
        "Array(Nullable(String))",
        &["{}", "{ok,NULL,\"so \\\"happy\\\", {yes}\"}"],
    )
    .sql("moods")
    .not_portable()
    .arrays(Arrays::Text),
    Case::text("composite", 0, &["(1,x)", "(,)", "(2,\"a \"\"b\"\", \\\\c\")", "(3,)"])
        .sql("pair")
        .text_only()
        .not_portable()
        .arrays(Arrays::Text),
    Case::text(
        "composite_nested",
        0,
        &["(\"(1,x)\",\"{\"\"(1,x)\"\",NULL}\",\"2020-01-01 00:00:00+00\",ok)", "(,,,)"],
    )
    .sql("nested")
    .text_only()
    .not_portable()
    .arrays(Arrays::Text),
    Case::text("domain_of_composite", 0, &["(1,x)", "(2,)"])
        .sql("nonempty_pair")
        .text_only()
        .not_portable()
        .arrays(Arrays::Text),
    Case::text("range", 0, &["empty", "[0.1,Infinity)", "(,)"])
        .sql("floatrange")
        .text_only()
        .not_portable()
        .arrays(Arrays::Text),
    Case::text("multirange", 0, &["{}", "{[0.1,0.2),[1,)}"])
        .sql("floatmultirange")
        .text_only()
        .not_portable()
        .arrays(Arrays::Text),
    Case::text("hstore", 0, &["", "\"a\"=>\"1\", \"b c\"=>NULL", "\"\"=>\"\\\"q\\\"\""])
        .extension("hstore")
        .text_only()
        .arrays(Arrays::Text),
    Case::text("ltree", 0, &["", "Top.Science.Astronomy"])
        .extension("ltree")
        .text_only()
        .arrays(Arrays::Text),
    Case::text("lquery", 0, &["*.science{1,2}.!a|b"])
        .extension("ltree")
        .text_only()
        .no_key()
        .arrays(Arrays::Text),
    Case::text("citext", 0, &["", "MiXed", "ünï"]).extension("citext").text_only().arrays(Arrays::Text),
    Case::text("cube", 0, &["(1, 2, 3)", "(0),(1)"]).extension("cube").text_only().arrays(Arrays::Text),
    Case::text("isbn", 0, &["0-393-04002-X"]).extension("isn").text_only().arrays(Arrays::Text),
    Case::text("seg", 0, &["1 .. 2", "<5", "6.25 .. 6.50"]).extension("seg").text_only().arrays(Arrays::Text),
    Case::text(
        "geometry",
        0,
        &["POINT(1 2)", "SRID=4326;POLYGON((0 0,0 1,1 1,0 0))", "GEOMETRYCOLLECTION EMPTY"],
    )
    .extension("postgis")
    .text_only()
    .no_key()
    .arrays(Arrays::Text),
];
