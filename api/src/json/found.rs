//! Places found in a document, told as paths: so few and so short that no document makes a burden of them.

use std::fmt::Display;

/// More places are not told; strict decoders of Kubernetes stop at as many.
pub(crate) const MAX_FOUND: usize = 100;
/// A path does not grow beyond so many bytes. A key may be as large as a request, and stand before very many places.
const MAX_PATH: usize = 1024;
/// Stands for what is left out of a path.
const LEFT_OUT: &str = "…";

/// Notes a place.
pub(crate) fn note(paths: &mut Vec<String>, path: &str) {
    if paths.len() < MAX_FOUND {
        paths.push(if path.len() > MAX_PATH { LEFT_OUT.to_owned() } else { path.to_owned() });
    }
}

/// Puts a segment in front of paths.
pub(crate) fn put_before(paths: &mut [String], segment: &dyn Display) {
    if paths.is_empty() {
        return;
    }
    let segment = segment.to_string();
    for path in paths {
        let dot = if path.starts_with('[') { "" } else { "." };
        if path.len() + segment.len() <= MAX_PATH {
            *path = format!("{segment}{dot}{path}");
        } else if !path.starts_with(LEFT_OUT) {
            *path = format!("{LEFT_OUT}{dot}{path}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_few_and_short() {
        let mut paths = Vec::new();
        for _ in 0..2 * MAX_FOUND {
            note(&mut paths, "a");
        }
        put_before(&mut paths, &"[3]");
        put_before(&mut paths, &"x".repeat(1 << 20));
        put_before(&mut paths, &"spec");
        assert_eq!(paths.len(), MAX_FOUND);
        assert_eq!(paths[0], "spec.…[3].a");
    }
}
