//! `docs/types.md`, made of the code that maps types: `UPDATE_DOCS=1 cargo test -p replicator-integration --test
//! types_page`. That the code does as it says is what `types.rs` tests with real servers.

use pgvalue::Form;
use replicator_config::ArrayColumns;
use replicator_integration::types::{Arrays, Case, Json, cases};
use replicator_sink_clickhouse::column_type;
use replicator_sink_object_store::json_of;
use replicator_sink_postgres::passes_unread;
use replicator_types::{Column, ColumnKind};
use std::path::Path;

const HEAD: &str = r#"# Types

<!-- Written by `UPDATE_DOCS=1 cargo test -p replicator-integration --test types_page` from the code. Edit it there. -->

What a column of each Postgres type becomes. `tests/integration/tests/types.rs` writes every value at the edges of
every type through the copy and the stream, from Postgres 15 and 18, as text and in binary form, into each sink, and
reads it back.

- **ClickHouse** is the type of a column that is NOT NULL; where the source allows NULL it is `Nullable(…)` of it
  (`LowCardinality(Nullable(String))` of an enum), and NULL stays NULL. A column of a key is never Nullable. In a
  history every column but the key's is Nullable.
- **As key** is the type in a primary key or replica identity; "–" where Postgres has no such key.
- **Array, NOT NULL** is the type of a column of arrays of it that is NOT NULL, under `arrays = "auto"`. ClickHouse has
  no array that is NULL and none of more than one dimension or with another lower bound than 1: an array column that
  allows NULL is the text `{…}`, a `Nullable(String)`, which has room for all of it.
- **Archive** is the kind of JSON in `before`, `after` and `key`.
- **Wire** says in which form values are read: `binary` where the binary form is understood, else `text`. The stream
  comes in binary form if each published column's can be understood, else all of it as text (`source.binary`). The copy
  decides column by column.
- **Postgres** makes the column with the source's own type; as `text` where values are names of objects that the target
  need not have (`regclass`, `aclitem` and the like). `bytes` says that values which come in binary form go on as they
  are, without being read; the others go as text.

## Each type

| Postgres | ClickHouse | As key | Array, NOT NULL | Archive | Wire | Postgres sink |
|---|---|---|---|---|---|---|
"#;

const AFTER_TYPES: &str = r#"
A text is what the type's output function writes under `DateStyle = ISO`, `IntervalStyle = postgres`, `TimeZone = UTC`,
`bytea_output = hex`, `lc_monetary = C` and `extra_float_digits = 1`, whatever the server's settings are. `bytea` is its
raw bytes in ClickHouse (in an array that is text, its `\x…`), and `\x…` in the archive. A timestamp without time zone is
taken as UTC in ClickHouse.

In the archive `NaN`, `Infinity` and `-Infinity` are strings, since JSON has no such numbers. `numeric`, `json` and `jsonb`
are strings too: most readers of JSON would round the one and reformat the others.

**Domains** are mapped as the type under them. In Postgres the column has the domain's own type, where the target knows it.

**Types of users and extensions** (enums, domains, composites, ranges, `hstore`, PostGIS, pgvector, …) that a Postgres
target has under the same name are used there. Of others an enum is made, with its labels in the order in which they
come; a domain, or an array of domains, becomes the built-in type under it; all else becomes `text`. Make a type in the
target beforehand to have it there: `replicator check` names the columns. Labels that an enum gains are added by the sink.
What is neither built in nor an enum is its text in ClickHouse and in the archive.

**Arrays as text.** An array of composites, ranges, extension types, `box` or `int2vector` is its text in
ClickHouse also where it is NOT NULL.

**Types without input.** `pg_node_tree`, `pg_ndistinct`, `pg_dependencies`, `pg_mcv_list`, `pg_brin_…_summary` and `gtsvector` take no
text: a column of such a type can be replicated as long as it holds NULL; at any other value the table is
[set aside](operations.md#replicatortablesetaside) in the Postgres sink.

## Values that ClickHouse has no room for

What becomes of them is set by `out_of_range`, and counted by `replicator_values_clamped_total`, by table and column. The
first in a column is logged. The Postgres sink and the archive have room for all of them.

| Type | Value | `"clamp"` (default) | `"null"` | `"error"` |
|---|---|---|---|---|
"#;

const POLICIES: &str = r#"
- `"error"` has the table set aside in the sink, while others go on. The message names the table, the
  column and the remedy.
- What is to become NULL in a column that is not Nullable makes it so first, with a line in the log.
- A value of a key is never changed, since two rows could become one: it is an error under every policy. Make the
  column's counterpart a `String` before the first run, or take another column as replica identity.
- The elements of an `Array(…)` are treated as values of a column that allows NULL.

## Arrays that ClickHouse has no room for

| Array | `arrays = "auto"` | `"array"` | `"text"` |
|---|---|---|---|
| column allows NULL | `Nullable(String)` | `Array(Nullable(T))` | `Nullable(String)` |
| column is NOT NULL | `Array(Nullable(T))` | `Array(Nullable(T))` | `String` |
| NULL | NULL | `[]`, counted | NULL |
| several dimensions, or a lower bound other than 1, in an `Array(…)` | error | error | – |

A `{}` is `[]`, or the text `{}`. An error has the table [set aside](operations.md#replicatortablesetaside) in the sink,
while others go on, and names the remedy: `arrays = "text"`, and `replicator resync --table`. A table that exists keeps its
columns' types until it is copied anew or its schema changes; a history, which is never emptied, until you alter it
(`ALTER TABLE … MODIFY COLUMN … Nullable(String)`).

## Types that change

`type_changes` says what becomes of a column whose type changes to one that its counterpart cannot be changed to:
see [configuration.md](configuration.md).
"#;

/// A column of a case's type.
fn column(case: &Case) -> Column {
    let array = |element_oid, element_is_enum| ColumnKind::Array {
        element_oid,
        element_modifier: -1,
        element_is_enum,
    };
    let kind = match (case.name, case.oid) {
        ("enum" | "enum_odd" | "domain_of_enum", _) => ColumnKind::Enum,
        ("domain_of_array", _) => array(23, false),
        ("domain_of_enum_array", _) => array(0, true),
        (_, 0) => ColumnKind::Other,
        // Ranges, multiranges, and arrays that have a case of their own.
        (_, 3904..=3926 | 4451 | 4532..=4536 | 1006 | 1013 | 1020) => ColumnKind::Other,
        _ => ColumnKind::Scalar,
    };
    Column {
        name: "v".to_owned(),
        type_oid: case.oid,
        base_type_oid: case.oid,
        type_modifier: modifier(case),
        kind,
        type_sql: case.type_sql.to_owned(),
        ..Column::default()
    }
}

/// `atttypmod` of a numeric; of the other types the code looks at none.
///
/// Source: `make_numeric_typmod` in `src/backend/utils/adt/numeric.c` of Postgres.
fn modifier(case: &Case) -> i32 {
    let declared = if case.type_sql == "price" { "numeric(12,2)" } else { case.type_sql };
    let Some(inside) = declared.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')) else {
        return -1;
    };
    let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
    let number = |text: &str| text.parse::<i32>().expect("a number");
    let (precision, scale) = (number(precision), number(scale));
    (precision << 16 | scale & 0x7ff) + 4
}

/// A column of arrays of a case's type, NOT NULL.
fn array_column(case: &Case) -> Column {
    let of = column(case);
    let kind = match of.kind {
        ColumnKind::Scalar | ColumnKind::Enum if case.arrays == Arrays::Typed => ColumnKind::Array {
            element_oid: of.base_type_oid,
            element_modifier: of.type_modifier,
            element_is_enum: of.kind == ColumnKind::Enum,
        },
        _ => ColumnKind::Other,
    };
    Column { kind, base_type_oid: 0, type_oid: 0, ..of }
}

/// The kind of JSON, by what texts of the type become.
fn json(column: &Column) -> Json {
    match (json_of(column, "t").as_str(), json_of(column, "1").as_str(), json_of(column, "1.5").as_str()) {
        ("true", ..) => Json::Bool,
        (_, "1", "1.5") => Json::Float,
        (_, "1", _) => Json::Integer,
        _ => Json::String,
    }
}

fn json_name(json: Json) -> &'static str {
    match json {
        Json::Bool => "boolean",
        Json::Integer | Json::Float => "number",
        Json::String => "string",
    }
}

/// What the page calls a type.
fn shown(case: &Case) -> String {
    let sample = match case.name {
        "enum" => "an enum",
        "domain" => "a domain over `integer`",
        "domain_of_array" => "a domain over `integer[]`",
        "composite" => "a composite",
        "range" => "a user's range",
        "multirange" => "a user's multirange",
        name if case.type_sql.replace(['"', ' '], "_") == name || case.extension.is_empty() => {
            return format!("`{}`", case.type_sql);
        }
        _ => return format!("`{}` ({})", case.type_sql, case.extension),
    };
    sample.to_owned()
}

/// Cases that are types of their own on the page.
fn on_the_page() -> Vec<Case> {
    let mut all = cases();
    let skipped = [
        "enum_odd",
        "domain_of_domain",
        "domain_of_numeric",
        "domain_of_date",
        "domain_of_enum",
        "domain_of_enum_array",
        "composite_nested",
        "domain_of_composite",
    ];
    all.retain(|case| !skipped.contains(&case.name));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|case| seen.insert(case.type_sql));
    all
}

fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for case in on_the_page() {
        let column = column(&case);
        let key = Column { is_key: true, ..column.clone() };
        let auto = ArrayColumns::Auto;
        let array = match case.arrays {
            Arrays::None => "–".to_owned(),
            _ => format!("`{}`", column_type(&array_column(&case), false, auto)),
        };
        let as_key =
            if case.is_key { format!("`{}`", column_type(&key, false, auto)) } else { "–".to_owned() };
        let wire = if pgvalue::form(&column) == Form::TextOnly { "text" } else { "binary" };
        let passage = if passes_unread(&column) { "bytes" } else { "text" };
        let (name, of, json) = (shown(&case), column_type(&column, false, auto), json_name(json(&column)));
        out += &format!("| {name} | `{of}` | {as_key} | {array} | {json} | {wire} | {passage} |\n");
    }
    out += AFTER_TYPES;
    for case in on_the_page() {
        for (value, clamped) in case.misfits {
            let clamped = if *clamped == "NULL" { "NULL".to_owned() } else { format!("`{clamped}`") };
            out += &format!("| `{}` | `{value}` | {clamped} | NULL | error |\n", case.type_sql);
        }
    }
    out + POLICIES
}

#[test]
fn the_types_page_is_what_the_code_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/types.md");
    let expected = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/types.md is out of date: UPDATE_DOCS=1 cargo test -p replicator-integration --test types_page"
    );
}

#[test]
fn the_code_maps_each_type_as_the_round_trip_expects() {
    for case in cases() {
        let column = column(&case);
        let of = |nullable| column_type(&column, nullable, ArrayColumns::Auto);
        assert_eq!(
            (of(false).as_str(), of(true)),
            (case.clickhouse, case.clickhouse_nullable()),
            "{}",
            case.name
        );
        if case.arrays != Arrays::None {
            let array = column_type(&array_column(&case), false, ArrayColumns::Auto);
            assert_eq!(array, case.clickhouse_array(), "{}[]", case.name);
        }
        assert_eq!(json(&column), case.json, "{}", case.name);
        assert_eq!(pgvalue::form(&column) != Form::TextOnly, case.is_binary, "{}", case.name);
    }
}
