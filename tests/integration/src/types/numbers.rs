//! Numbers and times: the types that ClickHouse has too, most of them.

use super::{Case, Json};

/// What does not fit a `Date32`.
const DATE_MISFITS: &[(&str, &str)] = &[
    ("infinity", "2299-12-31"),
    ("-infinity", "1900-01-01"),
    ("0044-03-15 BC", "1900-01-01"),
    ("4713-01-01 BC", "1900-01-01"),
    ("1899-12-31", "1900-01-01"),
    ("2300-01-01", "2299-12-31"),
    ("5874897-12-31", "2299-12-31"),
];

const DATES: &[&str] = &[
    "1970-01-01",
    "2024-02-29",
    "1900-01-01",
    "2299-12-31",
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "4713-01-01 BC",
    "1899-12-31",
    "2300-01-01",
    "5874897-12-31",
];

const TIMESTAMPS: &[&str] = &[
    "2024-02-29 13:00:00.123456",
    "1969-12-31 23:59:59.999999",
    "1900-01-01 00:00:00",
    "2299-12-31 23:59:59.999999",
    "2016-12-31 23:59:60",
    "2020-05-05 24:00:00",
    "2020-01-01 00:00:00.1",
    "infinity",
    "-infinity",
    "294276-12-31 23:59:59.999999",
    "4713-11-24 00:00:00 BC",
    "1899-12-31 23:59:59.999999",
];

pub(super) const CASES: &[Case] = &[
    Case::new("boolean", 16, "Bool", &["t", "f"]).json(Json::Bool),
    Case::new("smallint", 21, "Int16", &["0", "-32768", "32767"]).json(Json::Integer),
    Case::new("integer", 23, "Int32", &["0", "-2147483648", "2147483647"]).json(Json::Integer),
    Case::new(
        "bigint",
        20,
        "Int64",
        &["0", "-9223372036854775808", "9223372036854775807", "9007199254740993"],
    )
    .json(Json::Integer),
    Case::new("oid", 26, "UInt32", &["0", "4294967295"]).json(Json::Integer),
    Case::new("xid", 28, "UInt32", &["0", "4294967295"]).no_key(),
    Case::new("cid", 29, "UInt32", &["0", "4294967295"]).no_key(),
    Case::new("xid8", 5069, "UInt64", &["0", "18446744073709551615"]),
    // `-0` equals 0 and so is no other key.
    Case::new(
        "real",
        700,
        "Float32",
        &[
            "0",
            "0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-45",
            "3.4028235e38",
            "1.17549435e-38",
            "-1.5e-10",
            "16777217",
        ],
    )
    .json(Json::Float),
    Case::new(
        "double_precision",
        701,
        "Float64",
        &[
            "0",
            "0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "5e-324",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "1e15",
            "123456789012345680",
            "-0.30000000000000004",
        ],
    )
    .sql("double precision")
    .json(Json::Float),
    Case::new("real_minus_zero", 700, "Float32", &["-0", "1"]).sql("real").json(Json::Float),
    Case::new("double_minus_zero", 701, "Float64", &["-0", "1"]).sql("double precision").json(Json::Float),
    Case::text(
        "numeric",
        1700,
        &[
            "0",
            "NaN",
            "Infinity",
            "-Infinity",
            "-12345678901234567890.123456789",
            "1.10",
            ":=('1' || repeat('0', 131071))",
            ":=('0.' || repeat('0', 16382) || '7')",
            "10000",
            "0.0001",
        ],
    ),
    Case::text("numeric_zeros", 1700, &["0.000", "-0.00"]).sql("numeric").no_key(),
    Case::new(
        "numeric_12_2",
        1700,
        "Decimal(12, 2)",
        &["0.00", "0.01", "-0.01", "9999999999.99", "-9999999999.99", "NaN"],
    )
    .sql("numeric(12,2)")
    .misfits(&[("NaN", "NULL")]),
    Case::new(
        "numeric_38_10",
        1700,
        "Decimal(38, 10)",
        &["0.0000000001", ":=(repeat('9', 28) || '.' || repeat('9', 10))"],
    )
    .sql("numeric(38,10)"),
    Case::new(
        "numeric_76",
        1700,
        "Decimal(76, 0)",
        &["0", ":=repeat('9', 76)", ":=('-' || repeat('9', 76))"],
    )
    .sql("numeric(76)"),
    Case::new("numeric_76_76", 1700, "Decimal(76, 76)", &["0", ":=('0.' || repeat('9', 76))"])
        .sql("numeric(76,76)"),
    Case::text("numeric_77_2", 1700, &["0.00", ":=(repeat('9', 75) || '.99')"]).sql("numeric(77,2)"),
    Case::text(
        "numeric_100_80",
        1700,
        &["0", ":=('0.' || repeat('7', 80))", ":=('-1.' || repeat('0', 79) || '1')"],
    )
    .sql("numeric(100,80)"),
    Case::new("numeric_5_minus_3", 1700, "Decimal(8, 0)", &["0", "12345678", "-99999000"])
        .sql("numeric(5,-3)")
        .since(15),
    Case::new("numeric_2_5", 1700, "Decimal(5, 5)", &["0", "0.00099", "-0.00012"])
        .sql("numeric(2,5)")
        .since(15),
    Case::text("money", 790, &["0", "-92233720368547758.08", "92233720368547758.07", "0.01"]),
    Case::new("date", 1082, "Date32", DATES).misfits(DATE_MISFITS),
    Case::text("time", 1083, &["00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.7"]),
    Case::text("time_3", 1083, &["00:00:00", "24:00:00", "23:59:59.999"]).sql("time(3)"),
    Case::text("timetz", 1266, &["24:00:00-15:59", "00:00:00+15:59", "12:34:56.789+02", "12:00:00-00:30:15"])
        .sql("time with time zone"),
    Case::new("timestamp", 1114, "DateTime64(6, 'UTC')", TIMESTAMPS).misfits(&[
        ("infinity", "2299-12-31 23:59:59.999999"),
        ("-infinity", "1900-01-01 00:00:00"),
        ("294276-12-31 23:59:59.999999", "2299-12-31 23:59:59.999999"),
        ("4713-11-24 00:00:00 BC", "1900-01-01 00:00:00"),
        ("1899-12-31 23:59:59.999999", "1900-01-01 00:00:00"),
    ]),
    Case::new("timestamptz", 1184, "DateTime64(6, 'UTC')", TIMESTAMPS)
        .sql("timestamp with time zone")
        .misfits(&[
            ("infinity", "2299-12-31 23:59:59.999999+00"),
            ("-infinity", "1900-01-01 00:00:00+00"),
            ("294276-12-31 23:59:59.999999+00", "2299-12-31 23:59:59.999999+00"),
            ("4713-11-24 00:00:00+00 BC", "1900-01-01 00:00:00+00"),
            ("1899-12-31 23:59:59.999999+00", "1900-01-01 00:00:00+00"),
        ]),
    Case::new("timestamp_0", 1114, "DateTime64(6, 'UTC')", &["2024-02-29 13:00:00.5", "1900-01-01 00:00:00"])
        .sql("timestamp(0)"),
    // Months, days and microseconds apart; a key that is equal to another in other units is no key of these.
    Case::text(
        "interval",
        1186,
        &[
            "0",
            "178000000 years",
            "-178000000 years",
            "1 mon -2 days +03:04:05.6",
            "-1 mon +2 days -00:00:00.000001",
            "2147483647 days",
            "2562047788:00:54.775807",
            "1 year 2 mons",
        ],
    ),
    Case::text("interval_infinity", 1186, &["infinity", "-infinity"]).sql("interval").since(17),
    Case::text("interval_ytm", 1186, &["1 year 2 mons", "-5 mons"]).sql("interval year to month"),
    Case::new(
        "uuid",
        2950,
        "UUID",
        &[
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
];
