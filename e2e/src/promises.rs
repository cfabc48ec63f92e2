//! docs/promises.md against the tests that there are.
//!
//! Owns: that comparison. Must never: be satisfied by a document that names nothing.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use crate::install::top;

    /// Names of the functions in the Rust files below `place`.
    fn functions(place: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                functions(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
                found.extend(names.map(|(name, _)| name.to_owned()));
            }
        }
    }

    /// Names in one cell of a table.
    fn named(cell: &str) -> impl Iterator<Item = &str> {
        cell.split('`').skip(1).step_by(2)
    }

    #[test]
    fn every_test_that_docs_name_exists() {
        let (mut real, mut memory) = (BTreeSet::new(), BTreeSet::new());
        functions(&top().join("e2e/tests"), &mut real);
        functions(&top().join("src"), &mut memory);
        let text = fs::read_to_string(top().join("docs/promises.md")).unwrap();
        let mut promises = 0;
        for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let [_, on_cluster, in_memory] = cells[..] else { panic!("three cells: {line}") };
            for (cell, known) in [(on_cluster, &real), (in_memory, &memory)] {
                let missing: Vec<&str> = named(cell).filter(|name| !known.contains(*name)).collect();
                assert!(missing.is_empty(), "no test {missing:?}, of: {line}");
            }
            assert!(named(on_cluster).chain(named(in_memory)).next().is_some(), "nothing holds: {line}");
            promises += 1;
        }
        assert!(promises > 30, "{promises} promises in docs/promises.md");
    }
}
