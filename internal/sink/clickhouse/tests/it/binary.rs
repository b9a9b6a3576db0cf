//! Values in the binary forms that a real server makes of them.

use crate::support::Cell::{B, N, T, U};
use crate::support::*;
use crate::values::cases;
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_types::{Column, ColumnKind, oid};
use std::sync::Arc;

/// The binary forms of texts, as the types' send functions make them.
fn binary_forms(columns: &[(Column, &str)]) -> Vec<Vec<u8>> {
    let postgres = Postgres::start(PgVersion::V17, &PgOptions::default());
    let types = |column: &Column| match column.kind {
        ColumnKind::Array { element_oid, .. } => {
            format!("(SELECT typarray FROM pg_type WHERE oid = {element_oid})")
        }
        _ => format!("{}::oid", column.base_type_oid),
    };
    let names: Vec<String> = columns
        .iter()
        .map(|(column, _)| format!("SELECT typsend::text || ' ' || 'pg_catalog.' || quote_ident(typname) FROM pg_type WHERE oid = {}", types(column)))
        .collect();
    let names = postgres.sql("postgres", &names.join(" UNION ALL "));
    let forms: Vec<String> = names
        .lines()
        .zip(columns)
        .map(|(name, (_, text))| {
            let (send, of) = name.split_once(' ').unwrap();
            format!("SELECT encode({send}({}::{of}), 'hex')", sql_literal(text))
        })
        .collect();
    assert_eq!(forms.len(), columns.len());
    let forms = postgres.sql("postgres", &format!("SET TimeZone TO 'UTC'; {}", forms.join(" UNION ALL ")));
    let forms: Vec<Vec<u8>> = forms
        .lines()
        .filter(|line| *line != "SET")
        .map(|line| {
            let digits = line.as_bytes().chunks(2);
            digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
        })
        .collect();
    assert_eq!(forms.len(), columns.len());
    forms
}

fn sql_literal(text: &str) -> String {
    format!(
        "E'{}'",
        text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_every_type_is_the_same_whether_it_comes_in_binary_or_as_text() {
    let known = |column: &Column| !matches!(column.kind, ColumnKind::Enum | ColumnKind::Other);
    let cases: Vec<_> = cases().into_iter().filter(|(column, _, _)| known(column)).collect();
    let columns: Vec<(Column, &str)> =
        cases.iter().map(|(column, text, _)| (column.clone(), *text)).collect();
    let forms = binary_forms(&columns);
    for fixture in [Fixture::new(), Fixture::history()] {
        let mut all = vec![key("id", oid::INT8)];
        all.extend(cases.iter().map(|(column, _, _)| column.clone()));
        let types = Arc::new(table("types", all));
        let mut lane = fixture.lane(&[&types]).await;
        let mut text = vec![T("1")];
        text.extend(cases.iter().map(|(_, text, _)| T(text)));
        let two = 2_i64.to_be_bytes();
        let mut binary = vec![B(&two)];
        binary.extend(forms.iter().map(|form| B(form)));
        let mut nulls = vec![T("3")];
        nulls.extend(cases.iter().map(|(column, _, _)| if column.not_null { T("{}") } else { N }));
        write(
            &mut lane,
            batch(&[
                insert(&types, (10, 0), &text),
                insert(&types, (10, 1), &binary),
                insert(&types, (10, 2), &nulls),
            ]),
        )
        .await;
        // Values that are not sent come from a row that came in binary, in the batch and in the table.
        let mut untouched = vec![B(&two)];
        untouched.extend(cases.iter().map(|_| U));
        write(&mut lane, batch(&[update(&types, (11, 0), &untouched), update(&types, (11, 1), &untouched)]))
            .await;
        for (column, text, _) in &cases {
            let name = &column.name;
            let found = fixture.query(&format!(
                "SELECT uniqExact(hex(toString(`{name}`))), countIf(isNull(`{name}`)), count() >= 2 FROM {{db}}.types \
                 WHERE id IN (1, 2)"
            ));
            assert_eq!(found, "1\t0\t1", "{name} of {text}");
        }
    }
}
