//! Reads and writes YAML: read as a YAML 1.1 reader does, written so that such a reader gets the same values back.

use serde_json::Value;

mod write;

pub use write::to_string;

/// The largest file that is read.
const LIMIT: usize = 64 << 20;

/// Text that is neither YAML nor JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct ParseError {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Reads all documents of a text; empty ones are skipped.
pub fn parse(bytes: &[u8]) -> Result<Vec<Value>, ParseError> {
    let nowhere = |reason: String| ParseError { line: 1, column: 1, reason };
    if bytes.len() > LIMIT {
        return Err(nowhere(format!("more than {} MiB", LIMIT >> 20)));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| at_offset(bytes, error.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Some(documents) = json_documents(text)
    {
        return Ok(documents);
    }
    let budget = serde_saphyr::budget! {
        max_nodes: 2_000_000,
        max_events: 8_000_000,
        max_documents: 10_000,
        max_depth: 256,
        max_total_scalar_bytes: LIMIT,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| located(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Concatenated JSON documents; `None` when it is not JSON, which YAML's reader then explains.
fn json_documents(text: &str) -> Option<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        documents.push(document.ok()?);
    }
    Some(documents)
}

fn located(error: &serde_saphyr::Error) -> ParseError {
    let plain = error.without_snippet();
    let (line, column) = plain.location().map_or((1, 1), |place| (place.line(), place.column()));
    let mut reason = plain.to_string();
    // The place is told once, before the reason.
    for end in [format!(" at line {line}, column {column}"), format!("error: line {line} column {column}: ")]
    {
        reason = reason.replace(&end, "");
    }
    ParseError { line, column, reason: reason.lines().next().unwrap_or_default().trim().to_owned() }
}

fn at_offset(bytes: &[u8], offset: usize) -> ParseError {
    let before = bytes.get(..offset).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64 + 1;
    ParseError { line, column, reason: "not UTF-8".to_owned() }
}

#[cfg(test)]
mod tests;
