//! Tables that the server computes: which columns are shown, how rows are sorted and laid out.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::Value;

use super::jsonpath::{self, Template};
use super::tabs;

/// A table as the server sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Absent in the later events of a watch.
    #[serde(default)]
    pub column_definitions: Vec<Column>,
    /// One for each object.
    #[serde(default)]
    pub rows: Vec<Row>,
    /// Of the list.
    #[serde(default)]
    pub metadata: ListMeta,
}

/// A column.
#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    /// Its title.
    pub name: String,
    /// Zero is always shown, others only when asked for.
    #[serde(default)]
    pub priority: i64,
}

/// A row.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Text, numbers or truth values.
    pub cells: Vec<Value>,
    /// The object or its metadata.
    #[serde(default)]
    pub object: Value,
}

/// What a list says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// Where a watch goes on.
    pub resource_version: String,
    /// Where the next page starts.
    #[serde(rename = "continue")]
    pub continue_token: String,
}

/// What is shown of a table.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Also the columns of lower priority.
    pub wide: bool,
    /// A first column with the namespace.
    pub with_namespace: bool,
    /// Names carry the kind before a slash.
    pub with_kind: Option<String>,
    /// A last column with all labels.
    pub show_labels: bool,
    /// Columns with the values of these labels.
    pub label_columns: Vec<String>,
    /// No titles.
    pub no_headers: bool,
}

/// Rows as text, ready to be laid out; widths are remembered from one batch to the next.
#[derive(Debug, Default)]
pub struct Printer {
    columns: Vec<Column>,
    titles: Vec<String>,
    titles_due: bool,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

// === impl Printer ===

impl Printer {
    /// Takes rows in. Their objects are dropped at once.
    pub fn add(&mut self, table: Table, view: &View) {
        if !table.column_definitions.is_empty() && self.columns.is_empty() {
            self.columns = table.column_definitions;
            self.titles = titles(&self.columns, view);
            self.titles_due = !view.no_headers;
        }
        for row in table.rows {
            self.rows.push(cells(&self.columns, &row, view));
        }
    }

    /// Whether there is no row to print.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What was added since the last call, laid out.
    pub fn take(&mut self) -> String {
        let mut rows = std::mem::take(&mut self.rows);
        if std::mem::take(&mut self.titles_due) {
            rows.insert(0, self.titles.clone());
        }
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                let wanted = (tabs::width(cell) + tabs::TABLE.padding).max(tabs::TABLE.minimum);
                match self.widths.get_mut(at) {
                    Some(width) => *width = (*width).max(wanted),
                    None => self.widths.push(wanted),
                }
            }
        }
        let mut out = String::new();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if at + 1 < row.len() {
                    let width = self.widths.get(at).copied().unwrap_or_default();
                    out.extend(std::iter::repeat_n(' ', width.saturating_sub(tabs::width(cell))));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Sorts rows (which must carry whole objects) by what a path finds in them.
pub fn sort(rows: &mut [Row], path: &Template) -> Result<(), jsonpath::Error> {
    let mut found_any = rows.is_empty();
    let mut keyed = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let key = path.find(&row.object)?.first().map(|value| (*value).clone());
        found_any |= key.is_some();
        keyed.push((key, at));
    }
    if !found_any {
        return Err(jsonpath::Error::Eval("couldn't find any field with that path".to_owned()));
    }
    keyed.sort_by(|(left, _), (right, _)| compare(left.as_ref(), right.as_ref()));
    let mut order: Vec<usize> = vec![0; rows.len()];
    for (place, (_, at)) in keyed.iter().enumerate() {
        if let Some(slot) = order.get_mut(*at) {
            *slot = place;
        }
    }
    // Each row is put where it belongs, along the cycles of the permutation.
    for at in 0..rows.len() {
        while let Some(place) = order.get(at).copied().filter(|place| *place != at) {
            rows.swap(at, place);
            order.swap(at, place);
        }
    }
    Ok(())
}

/// Orders values of one field: nothing first, numbers and quantities by size, text by its characters.
pub fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            let (left, right) = (left.as_f64().unwrap_or(0.0), right.as_f64().unwrap_or(0.0));
            left.total_cmp(&right)
        }
        (Some(Value::String(left)), Some(Value::String(right))) => {
            let quantity = |text: &str| text.parse::<api::quantity::Quantity>().ok();
            match (quantity(left), quantity(right)) {
                (Some(left), Some(right)) => left.cmp(&right),
                _ => left.cmp(right),
            }
        }
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left.cmp(right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

fn shown<'a>(columns: &'a [Column], view: &'a View) -> impl Iterator<Item = (usize, &'a Column)> {
    columns.iter().enumerate().filter(move |(_, column)| view.wide || column.priority == 0)
}

fn titles(columns: &[Column], view: &View) -> Vec<String> {
    let mut titles = Vec::new();
    if view.with_namespace {
        titles.push("NAMESPACE".to_owned());
    }
    titles.extend(shown(columns, view).map(|(_, column)| column.name.to_uppercase()));
    for label in &view.label_columns {
        titles.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
    }
    if view.show_labels {
        titles.push("LABELS".to_owned());
    }
    titles
}

fn cells(columns: &[Column], row: &Row, view: &View) -> Vec<String> {
    let metadata = |name: &str| row.object.pointer(&format!("/metadata/{name}"));
    let mut out = Vec::new();
    if view.with_namespace {
        out.push(metadata("namespace").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    for (at, _) in shown(columns, view) {
        let cell = row.cells.get(at).map(cell_text).unwrap_or_default();
        match &view.with_kind {
            Some(kind) if at == 0 => out.push(format!("{kind}/{cell}")),
            _ => out.push(cell),
        }
    }
    let labels = metadata("labels").and_then(Value::as_object);
    for label in &view.label_columns {
        let value = labels.and_then(|labels| labels.get(label)).and_then(Value::as_str);
        out.push(value.unwrap_or_default().to_owned());
    }
    if view.show_labels {
        out.push(label_text(row.object.pointer("/metadata/labels")));
    }
    out
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn label_text(labels: Option<&Value>) -> String {
    let labels = labels.and_then(Value::as_object).filter(|labels| !labels.is_empty());
    let Some(labels) = labels else { return "<none>".to_owned() };
    let pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Table {
        serde_json::from_value(json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-10", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "default", "name": "web-10", "labels": {"app": "web", "x": "y"}}, "n": 3}},
                {"cells": ["web-9", "0/1\nmore", null], "object": {"metadata": {"namespace": "kube-system", "name": "web-9"}, "n": 20}}
            ],
        }))
        .expect("a table")
    }

    fn check(view: &View, expected: &str) {
        let mut printer = Printer::default();
        printer.add(table(), view);
        assert_eq!(printer.take(), expected);
    }

    #[test]
    fn views() {
        check(&View::default(), "NAME     READY\nweb-10   1/1\nweb-9    0/1...\n");
        check(
            &View { wide: true, with_namespace: true, ..View::default() },
            "NAMESPACE     NAME     READY    IP\ndefault       web-10   1/1      10.0.0.1\nkube-system   web-9    0/1...   <none>\n",
        );
        check(
            &View {
                no_headers: true,
                with_kind: Some("pod".to_owned()),
                show_labels: true,
                label_columns: vec!["app".to_owned()],
                ..View::default()
            },
            "pod/web-10   1/1      web   app=web,x=y\npod/web-9    0/1...         <none>\n",
        );
    }

    #[test]
    fn widths_are_remembered() {
        let mut printer = Printer::default();
        printer.add(table(), &View::default());
        printer.take();
        let later = json!({"rows": [{"cells": ["a", "b", "c"], "object": {}}]});
        printer.add(serde_json::from_value(later).expect("a table"), &View::default());
        assert_eq!(printer.take(), "a        b\n");
    }

    #[test]
    fn sorting() {
        let sorted = |path: &str| {
            let mut rows = table().rows;
            sort(&mut rows, &Template::relaxed(path).expect("a path")).expect("sorted");
            rows.iter().map(|row| row.cells[0].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(".metadata.name"), ["web-10", "web-9"]);
        assert_eq!(sorted(".n"), ["web-10", "web-9"]);
        assert_eq!(sorted(".metadata.labels.app"), ["web-9", "web-10"]);
        let mut rows = table().rows;
        sort(&mut rows, &Template::relaxed(".nowhere").expect("a path")).expect_err("no such field");
    }
}
