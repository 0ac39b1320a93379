//! Holds the form of the sources: file sizes, first lines, names of files, words that promise work left undone.

use anyhow::Result;

use crate::sources::{self, Source};

/// A file longer than this is perhaps two ideas.
const LINES_MAX: usize = 700;

/// File names that say nothing of what lives there.
const BANNED_FILES: &[&str] = &["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"];

/// All violations, one line each.
pub fn check() -> Result<Vec<String>> {
    Ok(sources::all(&["rs"])?.iter().flat_map(violations).collect())
}

fn violations(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let path = &source.path;
    let name = path.rsplit('/').next().unwrap_or(path);
    if BANNED_FILES.contains(&name) {
        found.push(format!("{path}: name the file after its idea"));
    }
    let test = path.ends_with("/tests.rs") || path.contains("/tests/");
    if !test && !source.text.starts_with("//!") {
        found.push(format!("{path}:1: the first line says what lives here (`//! …`)"));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{path}: {lines} lines, at most {LINES_MAX}"));
    }
    // Spelled in two parts so that this file does not find itself.
    let unfinished =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimpl", "emented!"), concat!("to", "do!(")];
    for (index, line) in source.text.lines().enumerate() {
        if let Some(word) = unfinished.iter().find(|word| line.contains(**word)) {
            found.push(format!("{path}:{}: {word}: build it, or say so in the issue", index + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let violations = check().unwrap();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    #[test]
    fn each_rule_can_fail() {
        let text = format!("fn f() {{ {} }}\n", concat!("to", "do!()")) + &"\n".repeat(LINES_MAX);
        let source = Source { path: "store/src/utils.rs".to_owned(), text };
        assert_eq!(violations(&source).len(), 4);
    }
}
