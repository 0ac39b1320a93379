//! Prints what was measured: a table for people, JSON for programs.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure with its unit, as shown.
    pub figure: String,
    /// The plain number.
    pub value: f64,
    /// What it is held against, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// As shown.
    pub text: String,
    /// Whether it was reached.
    pub reached: bool,
}

impl Row {
    /// A figure that is held against nothing.
    pub fn plain(what: impl Into<String>, value: f64, unit: &str) -> Row {
        Row { what: what.into(), figure: shown(value, unit), value, target: None }
    }

    /// A figure that should be at least `least`.
    pub fn at_least(what: impl Into<String>, value: f64, least: f64, unit: &str) -> Row {
        let target = Target { text: format!("≥ {}", shown(least, unit)), reached: value >= least };
        Row { target: Some(target), ..Row::plain(what, value, unit) }
    }

    /// A figure that should be at most `most`.
    pub fn at_most(what: impl Into<String>, value: f64, most: f64, unit: &str) -> Row {
        let target = Target { text: format!("≤ {}", shown(most, unit)), reached: value <= most };
        Row { target: Some(target), ..Row::plain(what, value, unit) }
    }
}

fn shown(value: f64, unit: &str) -> String {
    let number = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// Prints rows as one JSON array or as a table.
pub fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let what = width(|row| row.what.chars().count());
    let figure = width(|row| row.figure.chars().count());
    for row in rows {
        let held = row.target.as_ref().map_or(String::new(), |target| {
            format!("{} {}", target.text, if target.reached { "✓" } else { "✗" })
        });
        println!("{:<what$}  {:>figure$}  {held}", row.what, row.figure);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_knows_whether_it_reached_its_target() {
        let reached = |row: Row| row.target.map(|target| target.reached);
        assert_eq!(reached(Row::at_least("share", 0.61, 0.6, "")), Some(true));
        assert_eq!(reached(Row::at_most("idle", 120.0, 100.0, "MB")), Some(false));
        assert_eq!(Row::plain("rate", 15000.4, "/s").figure, "15000 /s");
    }
}
