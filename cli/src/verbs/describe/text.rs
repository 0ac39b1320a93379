//! Lines of a description, and the pieces that all descriptions share.

use jiff::Timestamp;
use serde_json::Value;

use crate::verbs::session::text_at;

/// Annotations longer than this get lines of their own.
const ANNOTATION_WIDTH: usize = 140;
const HIDDEN: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Lines, cells separated by tabs.
#[derive(Debug, Default)]
pub struct Text(String);

// === impl Text ===

impl Text {
    /// A line at a level of indentation.
    pub fn line(&mut self, level: usize, line: impl AsRef<str>) {
        self.0.extend(std::iter::repeat_n("  ", level));
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// A title and a value.
    pub fn field(&mut self, level: usize, title: &str, value: impl std::fmt::Display) {
        self.line(level, format!("{title}:\t{value}"));
    }

    /// A title and a value, `<none>` when it is empty.
    pub fn field_or_none(&mut self, level: usize, title: &str, value: &str) {
        self.field(level, title, if value.is_empty() { "<none>" } else { value });
    }

    /// A title and values, one a line.
    pub fn lines(&mut self, level: usize, title: &str, values: &[String]) {
        let Some((first, rest)) = values.split_first() else { return self.field(level, title, "<none>") };
        self.field(level, title, first);
        for value in rest {
            self.line(level, format!("\t{value}"));
        }
    }

    /// Labels or selectors, one a line.
    pub fn pairs(&mut self, level: usize, title: &str, map: Option<&Value>) {
        self.lines(level, title, &pairs(map, "="));
    }

    /// Annotations.
    pub fn annotations(&mut self, level: usize, map: Option<&Value>) {
        let Some(map) = map.and_then(Value::as_object) else {
            return self.field(level, "Annotations", "<none>");
        };
        let mut first = true;
        for (key, value) in map.iter().filter(|(key, _)| *key != HIDDEN) {
            let value = value.as_str().unwrap_or_default().trim_end_matches('\n');
            let title = if std::mem::take(&mut first) { "Annotations:" } else { "" };
            if value.len() + key.len() + 2 <= ANNOTATION_WIDTH && !value.contains('\n') {
                self.line(level, format!("{title}\t{key}: {value}"));
                continue;
            }
            self.line(level, format!("{title}\t{key}:"));
            for line in value.lines() {
                let short: String = line.chars().take(ANNOTATION_WIDTH - 2).collect();
                let dots = if short.len() < line.len() { "..." } else { "" };
                self.line(level, format!("\t  {short}{dots}"));
            }
        }
        if first {
            self.field(level, "Annotations", "<none>");
        }
    }

    /// Name, namespace, labels, annotations.
    pub fn head(&mut self, object: &Value) {
        self.field(0, "Name", text_at(object, "/metadata/name"));
        if let namespace @ [_, ..] = text_at(object, "/metadata/namespace").as_bytes() {
            self.field(0, "Namespace", String::from_utf8_lossy(namespace));
        }
    }

    /// The conditions of an object, in these columns.
    pub fn conditions(&mut self, object: &Value, columns: &[(&str, &str)]) {
        let Some(conditions) = object.pointer("/status/conditions").and_then(Value::as_array) else { return };
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let dashes: Vec<String> = titles.iter().map(|title| "-".repeat(title.len())).collect();
        self.line(1, titles.join("\t"));
        if columns.len() > 2 {
            self.line(1, dashes.join("\t"));
        }
        for condition in conditions {
            let cells: Vec<&str> = columns.iter().map(|(_, pointer)| text_at(condition, pointer)).collect();
            let (first, rest) =
                (cells.first().copied().unwrap_or_default(), cells.get(1..).unwrap_or_default());
            let end = if columns.len() > 2 { "" } else { " " };
            self.line(1, format!("{first} \t{}{end}", rest.join("\t")));
        }
    }

    /// All lines.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The pairs of a map, joined, in order of their keys.
pub fn pairs(map: Option<&Value>, between: &str) -> Vec<String> {
    let map = map.and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| format!("{key}{between}{}", plain(value))).collect()
}

/// A scalar as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A number at a path.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// `Sat, 21 Nov 2026 10:00:00 +0000`.
pub fn long_time(text: &str) -> String {
    match api::time::parse(text) {
        Ok(time) => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => "<unset>".to_owned(),
    }
}

/// How long ago a time was.
pub fn age_of(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => api::time::human_duration(now.duration_since(time)),
        Err(_) => "<unknown>".to_owned(),
    }
}
