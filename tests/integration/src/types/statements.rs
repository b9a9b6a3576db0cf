//! The SQL that makes a case's tables and changes their rows.
//!
//! Rows 1… are there before the run, rows 1001… come while it streams, rows 2001… are there and updated, rows 3001…
//! come and are updated in one transaction, row 4001 is there and deleted.

use super::{Arrays, Case};

/// The column list of a case's table.
pub fn columns(case: &Case) -> &'static [&'static str] {
    if case.arrays == Arrays::None { &["id", "v"] } else { &["id", "v", "a", "n"] }
}

/// Makes its tables.
pub fn create_tables(case: &Case) -> String {
    let of = case.type_sql;
    let arrays =
        if case.arrays == Arrays::None { String::new() } else { format!(", a {of}[], n {of}[] NOT NULL") };
    let mut sql = format!("CREATE TABLE t_{} (id int PRIMARY KEY, v {of}{arrays});\n", case.name);
    if case.is_key {
        sql += &format!("CREATE TABLE k_{} (k {of} PRIMARY KEY, n int);\n", case.name);
    }
    sql
}

/// The values of a row of `id`, of the case's `r`-th kind: `id, v, a, n`.
fn row(case: &Case, id: u32, r: usize) -> String {
    let values: Vec<String> =
        case.values.iter().map(|value| case.literal(value)).chain(["NULL".to_owned()]).collect();
    let at = |r: usize| &values[r % values.len()];
    let (this, next) = (at(r), at(r + 1));
    if case.arrays == Arrays::None {
        return format!("{id}, {this}");
    }
    let of = case.type_sql;
    let a = match r % 6 {
        0 => "NULL".to_owned(),
        1 => "'{}'".to_owned(),
        2 => format!("ARRAY[{this}, NULL, {next}]::{of}[]"),
        3 => format!("ARRAY[[{this}, {next}], [NULL, {this}]]::{of}[]"),
        4 => format!("('[-1:1]=' || (ARRAY[{next}, {this}, NULL]::{of}[])::text)::{of}[]"),
        _ => format!("('[2:2][5:6]=' || (ARRAY[[{this}, {next}]]::{of}[])::text)::{of}[]"),
    };
    let n = match r % 3 {
        0 => "'{}'".to_owned(),
        1 => format!("ARRAY[{this}]::{of}[]"),
        _ => format!("ARRAY[{next}, NULL, {this}]::{of}[]"),
    };
    format!("{id}, {this}, {a}, {n}")
}

/// How many kinds of rows a case has.
pub fn kinds(case: &Case) -> u32 {
    (case.values.len() + 1).max(if case.arrays == Arrays::None { 0 } else { 6 }) as u32
}

fn insert(case: &Case, from: u32) -> String {
    let rows: Vec<String> =
        (0..kinds(case)).map(|r| format!("({})", row(case, from + r, r as usize))).collect();
    format!("INSERT INTO t_{} VALUES {};\n", case.name, rows.join(", "))
}

fn update(case: &Case, from: u32, by: usize) -> String {
    let mut sql = String::new();
    let names = columns(case).join(", ");
    for r in 0..kinds(case) {
        let row = row(case, from + r, r as usize + by);
        sql += &format!("UPDATE t_{} SET ({names}) = ROW({row}) WHERE id = {};\n", case.name, from + r);
    }
    sql
}

/// Rows of the key's table, without those that no key of ClickHouse can be.
fn insert_keys(case: &Case) -> String {
    let values: Vec<String> = case.values.iter().map(|value| format!("({})", case.literal(value))).collect();
    let misfits: Vec<String> =
        case.misfits.iter().map(|(text, _)| format!("'{}'", text.replace('\'', "''"))).collect();
    format!(
        "INSERT INTO k_{} SELECT k, 0 FROM (VALUES {}) AS given(k) WHERE concat(k) <> ALL(ARRAY[{}]::text[]);\n",
        case.name,
        values.join(", "),
        misfits.join(", ")
    )
}

/// Fills them before the run.
pub fn before_the_run(case: &Case) -> String {
    let mut sql = insert(case, 1) + &insert(case, 2001);
    sql += &format!("INSERT INTO t_{} VALUES ({});\n", case.name, row(case, 4001, 0));
    if case.is_key {
        sql += &insert_keys(case);
    }
    sql
}

/// Changes every row in the stream, each value to the next.
pub fn during_the_run(case: &Case) -> String {
    let mut sql = format!(
        "{}{}BEGIN;\n{}{}COMMIT;\nDELETE FROM t_{} WHERE id = 4001;\n",
        insert(case, 1001),
        update(case, 2001, 1),
        insert(case, 3001),
        update(case, 3001, 2),
        case.name
    );
    if case.is_key {
        let first = case.literal(case.values[0]);
        let table = format!("k_{}", case.name);
        sql += &format!(
            "UPDATE {table} SET n = n + 1;
             DELETE FROM {table} WHERE concat(k) = concat({first}); INSERT INTO {table} VALUES ({first}, 100);
             CREATE TEMP TABLE kept AS SELECT * FROM {table}; DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept;
             DROP TABLE kept; UPDATE {table} SET n = n + 10 WHERE concat(k) <> concat({first});\n"
        );
    }
    sql
}
