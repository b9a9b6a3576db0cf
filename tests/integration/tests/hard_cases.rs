//! The page of hard cases names tests that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/hard-cases.md";

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Names of functions that are tests, below a folder.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                tests_below(&path, found);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("a file of the repository");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                if let Some((name, _)) = name.filter(|_| is_test) {
                    found.insert(name.to_owned());
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_test_that_the_page_of_hard_cases_names_is_there() {
    let mut tests = BTreeSet::new();
    for folder in ["cmd", "internal", "pkg", "tests"] {
        tests_below(&root().join(folder), &mut tests);
    }
    let page = fs::read_to_string(root().join(PAGE)).expect(PAGE);
    let named: Vec<&str> =
        page.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 3).collect();
    assert!(named.len() > 60, "{named:?}");
    for name in named {
        assert!(tests.contains(name), "{PAGE} names {name}, which is no test");
    }
    let cases: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    for case in 1..=36 {
        let of_case = |line: &&&str| {
            let first = line.trim_start_matches("| ").split('|').next().unwrap_or_default();
            first.split(',').any(|number| number.trim() == case.to_string())
        };
        assert_eq!(cases.iter().filter(of_case).count(), 1, "case {case}");
    }
}
