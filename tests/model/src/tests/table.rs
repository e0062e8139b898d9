//! The tables of docs/model.md say what the checks do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::mutants::cases;
use crate::invariants::S;

const DOCUMENT: &str = include_str!("../../../../docs/model.md");

/// Rows of the table under a heading, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let part = DOCUMENT.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    part.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

/// Names of the invariants that a property test names in its own name.
fn of_properties() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../operator/core/tests/fleet/properties");
    let mut named = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let tests = text.lines().filter_map(|line| line.strip_prefix("fn s"));
        let words = tests.flat_map(|test| test.split('_').map(|word| word.trim_start_matches('s')));
        named.extend(words.filter(|word| word.parse::<u8>().is_ok()).map(|number| format!("S{number}")));
    }
    named
}

#[test]
fn the_table_of_invariants_says_where_each_is_checked() {
    let table = rows("\n## Invariants");
    let marked = |column: usize| -> BTreeSet<String> {
        table.iter().filter(|row| row[column] == "yes").map(|row| row[0].to_owned()).collect()
    };
    let of_model: BTreeSet<_> = S::ALL.iter().map(|s| format!("{s:?}")).collect();
    assert_eq!(marked(2), of_model);
    assert_eq!(marked(3), of_properties());
    assert!(table.iter().all(|row| row[2] == "yes" || row[3] == "yes"), "one is checked nowhere");
}

#[test]
fn the_table_of_mutants_says_what_finds_each() {
    let name = |cell: &str| cell.split('`').nth(1).unwrap().to_owned();
    let table: BTreeMap<_, _> = rows("\n## Mutants").iter().map(|row| (name(row[0]), row[1].to_owned())).collect();
    let word = |s: S| format!("{s:?}");
    let wanted: BTreeMap<_, _> =
        cases().iter().map(|case| (format!("{:?}", case.mutant), word(case.found_by))).collect();
    assert_eq!(table, wanted);
}

#[test]
fn each_invariant_of_the_model_has_a_mutant_that_breaks_it() {
    let broken: BTreeSet<_> = cases().iter().map(|case| case.found_by).collect();
    assert_eq!(broken, S::ALL.into());
}
