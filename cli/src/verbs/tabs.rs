//! Aligns columns: cells end at tabs, and neighbouring lines that have a cell in the same place share its width.

/// How wide columns are.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The least width of a column, padding included.
    pub minimum: usize,
    /// Blanks after the widest cell.
    pub padding: usize,
}

/// Tables, as `get` prints them.
pub const TABLE: Layout = Layout { minimum: 6, padding: 3 };
/// Descriptions.
pub const DESCRIPTION: Layout = Layout { minimum: 0, padding: 2 };

/// Lays out lines whose cells are separated by tabs.
pub fn align(text: &str, layout: Layout) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, layout, &mut Vec::new(), &mut out);
    out
}

/// Lays out lines that share the columns in `widths`: runs that have one more column share its width too.
fn block(lines: &[Vec<&str>], layout: Layout, widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| column + 1 < line.len();
    let mut rest = lines;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|line| !has_cell(line)).count();
        let (without, more) = rest.split_at(plain);
        without.iter().for_each(|line| write_line(line, widths, out));
        let run = more.iter().take_while(|line| has_cell(line)).count();
        let (with, after) = more.split_at(run);
        if !with.is_empty() {
            let cells = with.iter().filter_map(|line| line.get(column));
            let widest = cells.map(|cell| width(cell) + layout.padding).max().unwrap_or(0);
            widths.push(widest.max(layout.minimum));
            block(with, layout, widths, out);
            widths.pop();
        }
        rest = after;
    }
}

fn write_line(cells: &[&str], widths: &[usize], out: &mut String) {
    for (at, cell) in cells.iter().enumerate() {
        out.push_str(cell);
        if at + 1 < cells.len() {
            let column = widths.get(at).copied().unwrap_or(0);
            out.extend(std::iter::repeat_n(' ', column.saturating_sub(width(cell))));
        }
    }
    out.push('\n');
}

/// Columns that text takes on a terminal, each character taken as one.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_neighbours() {
        let text = "Name:\tweb\nNamespace:\tdefault\nLabels:\t<none>\n  a\tb\tc\n  long one\tx\ty\nend\n";
        let expected = "Name:       web\nNamespace:  default\nLabels:     <none>\n  a         b  c\n  long one  x  y\nend\n";
        assert_eq!(align(text, DESCRIPTION), expected);
        assert_eq!(align("A\tB\n\nx\tyy\n", TABLE), "A     B\n\nx     yy\n");
        assert_eq!(align("", TABLE), "");
    }
}
