//! From text to a template.

use serde_json::Value;

use super::{Comparison, Node, Operand, Step};

type Parsed<T> = Result<T, String>;

/// Nested ranges and filters are bounded: the parser calls itself for them.
const DEPTH: usize = 32;

pub(super) fn template(text: &str) -> Parsed<Vec<Node>> {
    // Ranges that are still open: their steps, and what stood before them.
    let mut open: Vec<(Vec<Step>, Vec<Node>)> = Vec::new();
    let mut nodes = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(start) = rest.find('{') else {
            nodes.push(Node::Text(rest.to_owned()));
            break;
        };
        let (before, action) = rest.split_at(start);
        if !before.is_empty() {
            nodes.push(Node::Text(before.to_owned()));
        }
        let end = action_end(action).ok_or("unclosed action")?;
        let inside = action.get(1..end).unwrap_or_default();
        rest = action.get(end + 1..).unwrap_or_default();
        match inside.trim() {
            "end" => {
                let (steps, outer) = open.pop().ok_or("not in range, nothing to end")?;
                let body = std::mem::replace(&mut nodes, outer);
                nodes.push(Node::Range(steps, body));
            }
            word if word == "range" || word.starts_with("range ") => {
                if open.len() >= DEPTH {
                    return Err("too many nested ranges".to_owned());
                }
                let mut cursor = Cursor::new(word.get(5..).unwrap_or_default(), 0);
                let steps = cursor.path()?;
                cursor.expect_end()?;
                open.push((steps, std::mem::take(&mut nodes)));
            }
            _ => nodes.append(&mut pieces(inside)?),
        }
    }
    if open.is_empty() { Ok(nodes) } else { Err("unclosed range: {end} is missing".to_owned()) }
}

/// Where the action that `text` starts with is closed: braces in quotes do not count.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// The quoted texts and paths of one action.
fn pieces(inside: &str) -> Parsed<Vec<Node>> {
    let mut cursor = Cursor::new(inside, 0);
    let mut nodes = Vec::new();
    loop {
        cursor.blanks();
        match cursor.peek() {
            None => return Ok(nodes),
            Some('"' | '\'') => nodes.push(Node::Text(cursor.quoted()?)),
            Some(_) => nodes.push(Node::Path(cursor.path()?)),
        }
    }
}

struct Cursor<'a> {
    rest: &'a str,
    depth: usize,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn new(rest: &'a str, depth: usize) -> Self {
        Self { rest, depth }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect_end(&mut self) -> Parsed<()> {
        self.blanks();
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("unrecognized text in action: {:?}", self.rest))
        }
    }

    /// A path: steps up to a blank or an operator.
    fn path(&mut self) -> Parsed<Vec<Step>> {
        self.blanks();
        let mut steps = Vec::new();
        let rooted = self.eat("$") || self.eat("@");
        loop {
            if self.eat("..") {
                steps.push(Step::Recursive);
                if self.peek().is_some_and(|c| c != '[') {
                    steps.push(self.field()?);
                }
            } else if self.eat(".") {
                // A lone dot is the value itself.
                if self.peek().is_some_and(|c| !terminates(c)) {
                    steps.push(self.field()?);
                } else if self.peek() == Some('[') {
                    continue;
                }
            } else if self.peek() == Some('[') {
                steps.push(self.bracket()?);
            } else {
                break;
            }
        }
        match self.peek() {
            Some(c) if steps.is_empty() && !rooted && !terminates(c) => {
                Err(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32))
            }
            _ => Ok(steps),
        }
    }

    fn field(&mut self) -> Parsed<Step> {
        let mut name = String::new();
        let mut rest = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = rest.next() {
            match c {
                '\\' => name.extend(rest.next().map(|(_, c)| c)),
                c if terminates(c) => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        match &*name {
            "" => Err("a field name is missing".to_owned()),
            "*" => Ok(Step::Wildcard),
            _ => Ok(Step::Field(name)),
        }
    }

    fn quoted(&mut self) -> Parsed<String> {
        let quote = self.peek().ok_or("unterminated quoted string")?;
        let mut text = String::new();
        let mut rest = self.rest.char_indices().skip(1);
        while let Some((at, c)) = rest.next() {
            match c {
                c if c == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => match rest.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c) => text.push(c),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    fn bracket(&mut self) -> Parsed<Step> {
        if self.rest.starts_with("[?(") {
            return self.filter();
        }
        let end = bracket_end(self.rest).ok_or("unterminated array")?;
        let inside = self.rest.get(1..end).unwrap_or_default();
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        let parts = split_commas(inside);
        match parts.as_slice() {
            [one] => subscript(one, self.depth),
            many => many
                .iter()
                .map(|part| subscript(part, self.depth).map(|step| vec![step]))
                .collect::<Parsed<_>>()
                .map(Step::Union),
        }
    }

    fn filter(&mut self) -> Parsed<Step> {
        if self.depth >= DEPTH {
            return Err("too many nested filters".to_owned());
        }
        let end = bracket_end(self.rest).ok_or("unterminated filter")?;
        let inside = self.rest.get(3..end).unwrap_or_default();
        let inside = inside.trim_end().strip_suffix(')').ok_or("unterminated filter")?;
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        let mut cursor = Cursor::new(inside, self.depth + 1);
        let left = cursor.operand()?;
        cursor.blanks();
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((_, comparison)) = OPERATORS.into_iter().find(|(text, _)| cursor.eat(text)) else {
            cursor.expect_end()?;
            return Ok(Step::Filter(left, None));
        };
        let right = cursor.operand()?;
        cursor.expect_end()?;
        Ok(Step::Filter(left, Some((comparison, right))))
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.blanks();
        match self.peek() {
            Some('"' | '\'') => self.quoted().map(|text| Operand::Literal(Value::String(text))),
            Some('@' | '$' | '.' | '[') => self.path().map(Operand::Path),
            _ => {
                let end = self
                    .rest
                    .find(|c: char| c.is_whitespace() || "=!<>".contains(c))
                    .unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                let literal: Option<Value> = serde_json::from_str(word).ok();
                literal.map(Operand::Literal).ok_or_else(|| format!("unrecognized identifier {word:?}"))
            }
        }
    }
}

fn terminates(c: char) -> bool {
    c.is_whitespace() || ".,[]$@{}=!<>()\"'".contains(c)
}

/// Where the bracket that `text` starts with is closed.
fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            (None, _) => {}
        }
    }
    None
}

fn split_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ',') => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// What one part of `[…]` means.
fn subscript(text: &str, depth: usize) -> Parsed<Step> {
    let text = text.trim();
    let invalid = || format!("invalid array index {text}");
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    if text.starts_with(['"', '\'']) {
        let mut cursor = Cursor::new(text, depth);
        let name = cursor.quoted()?;
        cursor.expect_end()?;
        return Ok(Step::Field(name));
    }
    let number = |part: &str| match part.trim() {
        "" => Ok(None),
        part => part.parse::<i64>().map(Some).map_err(|_| invalid()),
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => number(one)?.map(Step::Index).ok_or_else(invalid),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => match number(step)?.unwrap_or(1) {
            step if step > 0 => Ok(Step::Slice(number(from)?, number(to)?, step)),
            _ => Err("step must be > 0".to_owned()),
        },
        _ => Err(invalid()),
    }
}
