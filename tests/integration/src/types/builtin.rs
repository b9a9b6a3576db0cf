//! Texts, bytes, documents, networks, shapes, names of the catalog: the built-in types that ClickHouse has not.

use super::{Arrays, Case};

/// Types whose values cannot be written down: a column of theirs holds NULL, or what the server made.
const NO_INPUT: &[&str] = &[];

pub(super) const CASES: &[Case] = &[
    Case::text(
        "text",
        25,
        &[
            "",
            " ",
            "NULL",
            "\\N",
            "\\\\N",
            "ünïcode ✓ 𝄞",
            "tab\tnew\nline\rreturn\u{8}\u{c}\u{b}\u{1}\u{7f}",
            "\"quoted\" 'single' {a,b} \\back",
            "{}",
            "[1:2]={a,b}",
        ],
    ),
    Case::text("text_large", 25, &[":=repeat('x', 1000000)", ":=repeat('ü\\\"', 200000)"])
        .sql("text")
        .no_key()
        .arrays(Arrays::None),
    Case::text("varchar", 1043, &["", "a ", "ü"]).sql("varchar(5)"),
    Case::text("varchar_any", 1043, &["", "a"]).sql("varchar"),
    Case::text("char_5", 1042, &["", "ab", "üüüüü"]).sql("character(5)"),
    Case::text("char_any", 1042, &["", "ab"]).sql("bpchar"),
    Case::text("char_internal", 18, &["", "a", " ", "\\", "\""]).sql("\"char\""),
    Case::text("char_internal_high", 18, &[":=(-1)::int::\"char\"", ":=(-128)::int::\"char\""])
        .sql("\"char\"")
        .since(16),
    Case::text("name", 19, &["", "x", ":=repeat('n', 63)"]),
    Case::text("bytea", 17, &["", "\\x00", "\\x00ff5c27", "\\x5c4e", "\\xdeadbeef"]),
    Case::text("bytea_large", 17, &[":=decode(repeat('00ff5c27', 100000), 'hex')"])
        .sql("bytea")
        .no_key()
        .arrays(Arrays::None),
    Case::text("bit_4", 1560, &["1010", "0000"]).sql("bit(4)"),
    Case::text("bit_1", 1560, &["1", "0"]).sql("bit"),
    Case::text("varbit", 1562, &["", "1", "101010101", "00000000"]).sql("bit varying"),
    Case::text("varbit_5", 1562, &["", "10101"]).sql("bit varying(5)"),
    Case::text(
        "json",
        114,
        &[
            "{\"a\" : 1,  \"a\":2}",
            "\"\\u0000\"",
            "[]",
            "null",
            "12345678901234567890.1230",
            "\"\\ud834\\udd1e\"",
            " {} ",
            "1e400",
        ],
    )
    .no_key(),
    Case::text(
        "jsonb",
        3802,
        &[
            "{\"a\" : 1,  \"b\":[2.50, null]}",
            "[]",
            "null",
            "9007199254740993",
            "\"\\\\N\"",
            "\"\"",
            "1e400",
            "{\"\": \"ü\\n\"}",
        ],
    ),
    Case::text("jsonpath", 4072, &["$", "$.a[*] ? (@ > 1)", "strict $.\"k\""]).no_key(),
    Case::text(
        "xml",
        142,
        &["<a b=\"1\">text</a>", "", "a <b/> &amp; c", "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ü/>"],
    )
    .no_key(),
    Case::text("tsvector", 3614, &["", "'a':1A 'fat''s':2B,3 'x\\\\y'", "'plain'"]),
    Case::text("tsquery", 3615, &["", "'fat' & ('rat' | !'cat':AB)", "'a' <2> 'b':*"]).text_only(),
    Case::text("inet", 869, &["10.0.0.1", "10.0.0.1/8", "::ffff:1.2.3.4", "fe80::1/64", "0.0.0.0/0", "::"]),
    Case::text("cidr", 650, &["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "1.2.3.4/32"]),
    Case::text("macaddr", 829, &["08:00:2b:01:02:03", "00:00:00:00:00:00"]),
    Case::text("macaddr8", 774, &["08:00:2b:01:02:03:04:05", "ff:ff:ff:ff:ff:ff:ff:ff"]),
    Case::text("point", 600, &["(0,0)", "(-0,1e300)", "(NaN,Infinity)", "(0.1,-2.5)"]).no_key(),
    Case::text("line", 628, &["{1,2,3}", "{-1,0,0.1}"]).no_key(),
    Case::text("lseg", 601, &["[(0,0),(1,1)]", "[(0.1,2),(-3,1e-5)]"]).no_key(),
    Case::text("box", 603, &["(1,1),(0,0)", "(2,2),(-1,-0.5)"]).no_key().arrays(Arrays::None),
    Case::text(
        "box_array",
        1020,
        &["{(1,1),(0,0)}", "{(1,1),(0,0);(2,2),(-1,-0.5);NULL}", "{}", "[0:0]={(1,1),(0,0)}"],
    )
    .sql("box[]")
    .no_key()
    .text_only()
    .arrays(Arrays::None),
    Case::text("path", 602, &["((0,0),(1,1))", "[(0,0),(1,1),(2,0)]"]).no_key(),
    Case::text("polygon", 604, &["((0,0),(1,1),(2,0))", "((0,0))"]).no_key(),
    Case::text("circle", 718, &["<(0,0),1>", "<(0.1,-2),0>"]).no_key(),
    Case::text("int2vector", 22, &["", "1 -2 3"]).no_key().arrays(Arrays::None),
    Case::text("int2vector_array", 1006, &["{}", "{\"1 -2 3\",NULL,\"\"}"])
        .sql("int2vector[]")
        .no_key()
        .text_only()
        .arrays(Arrays::None),
    Case::text("oidvector", 30, &["", "1 4294967295"]).arrays(Arrays::None),
    Case::text("oidvector_array", 1013, &["{}", "{\"1 2\",NULL}"])
        .sql("oidvector[]")
        .no_key()
        .text_only()
        .arrays(Arrays::None),
    Case::text("tid", 27, &["(0,1)", "(4294967295,65535)"]),
    Case::text("pg_lsn", 3220, &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
    Case::text("txid_snapshot", 2970, &["10:20:10,14,15", "1:1:"]).no_key(),
    Case::text("pg_snapshot", 5038, &["10:20:10,14,15", "1:1:"]).no_key(),
    Case::text("refcursor", 1790, &["", "cursor \"1\""]).no_key(),
    Case::text("aclitem", 1033, &["postgres=r/postgres", "=rw*/postgres"])
        .no_key()
        .text_only()
        .not_portable(),
    Case::text("int4range", 3904, &["empty", "[1,5)", "(,)", "[-2147483648,)"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("int8range", 3926, &["empty", "[1,9223372036854775807)"]).text_only().arrays(Arrays::Text),
    Case::text("numrange", 3906, &["empty", "[1.50,2.5]", "(,NaN]"]).text_only().arrays(Arrays::Text),
    Case::text("daterange", 3912, &["empty", "[2020-01-01,infinity)", "[0044-03-15 BC,2020-01-01)"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("tsrange", 3908, &["empty", "[\"2020-01-01 00:00:00\",infinity)"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("tstzrange", 3910, &["empty", "[\"2020-01-01 00:00:00+02\",\"2021-01-01\"]"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("int4multirange", 4451, &["{}", "{[1,3),[5,7)}"]).text_only().arrays(Arrays::Text),
    Case::text("int8multirange", 4536, &["{}", "{(,)}"]).text_only().arrays(Arrays::Text),
    Case::text("nummultirange", 4532, &["{}", "{[1.5,2],(3,)}"]).text_only().arrays(Arrays::Text),
    Case::text("datemultirange", 4535, &["{}", "{[2020-01-01,2020-02-01)}"]).text_only().arrays(Arrays::Text),
    Case::text("tsmultirange", 4533, &["{}", "{[\"2020-01-01 00:00:00\",)}"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("tstzmultirange", 4534, &["{}", "{[\"2020-01-01 00:00:00+00\",\"2021-01-01 00:00:00+00\")}"])
        .text_only()
        .arrays(Arrays::Text),
    Case::text("regclass", 2205, &["pg_class", "-", "information_schema.tables"]).text_only().not_portable(),
    Case::text("regtype", 2206, &["integer", "character varying", "-"]).text_only().not_portable(),
    Case::text("regproc", 24, &["now", "-"]).text_only().not_portable(),
    Case::text("regprocedure", 2202, &["abs(integer)", "-"]).text_only().not_portable(),
    Case::text("regoper", 2203, &["||/", "0"]).text_only().not_portable(),
    Case::text("regoperator", 2204, &["*(integer,integer)", "0"]).text_only().not_portable(),
    Case::text("regrole", 4096, &["postgres", "-"]).text_only().not_portable(),
    Case::text("regnamespace", 4089, &["pg_catalog", "-"]).text_only().not_portable(),
    Case::text("regcollation", 4191, &["\"C\"", "-"]).text_only().not_portable(),
    Case::text("regconfig", 3734, &["english", "-"]).text_only().not_portable(),
    Case::text("regdictionary", 3769, &["simple", "-"]).text_only().not_portable(),
    Case::text("pg_node_tree", 194, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("pg_ndistinct", 3361, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("pg_dependencies", 3402, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("pg_mcv_list", 5017, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("pg_brin_bloom_summary", 4600, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("pg_brin_minmax_multi_summary", 4601, NO_INPUT).no_key().text_only().arrays(Arrays::None),
    Case::text("gtsvector", 3642, NO_INPUT).no_key().text_only().arrays(Arrays::None).not_portable(),
];
