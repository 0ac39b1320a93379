//! Writes YAML in the form that kubectl's users know: keys sorted, lists not indented, text plain where that is safe.

use serde_json::{Map, Value};

/// Lines are folded at the first blank after this column.
const WIDTH: usize = 80;

/// A document, with a line feed at its end.
pub fn to_string(value: &Value) -> String {
    let mut out = Writer { text: String::new(), line_start: 0 };
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0, true),
        Value::Array(items) if !items.is_empty() => out.list(items, 0, true),
        scalar => {
            out.scalar(scalar, 2, false);
            out.newline();
        }
    }
    out.text
}

struct Writer {
    text: String,
    line_start: usize,
}

// === impl Writer ===

impl Writer {
    /// Entries at `indent`; the first one continues the line when `started`.
    fn map(&mut self, map: &Map<String, Value>, indent: usize, mut started: bool) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort();
        for key in keys {
            let Some(value) = map.get(key) else { continue };
            if !std::mem::take(&mut started) {
                self.spaces(indent);
            }
            self.string(key, indent + 2, true);
            self.text.push(':');
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    self.newline();
                    self.map(inner, indent + 2, false);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.newline();
                    self.list(items, indent, false);
                }
                scalar => {
                    self.text.push(' ');
                    self.scalar(scalar, indent + 2, false);
                    self.newline();
                }
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize, mut started: bool) {
        for item in items {
            if !std::mem::take(&mut started) {
                self.spaces(indent);
            }
            self.text.push_str("- ");
            match item {
                Value::Object(inner) if !inner.is_empty() => self.map(inner, indent + 2, true),
                Value::Array(inner) if !inner.is_empty() => self.list(inner, indent + 2, true),
                scalar => {
                    self.scalar(scalar, indent + 2, false);
                    self.newline();
                }
            }
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize, key: bool) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(flag) => self.text.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number.to_string()),
            Value::String(text) => self.string(text, indent, key),
            Value::Array(_) => self.text.push_str("[]"),
            Value::Object(_) => self.text.push_str("{}"),
        }
    }

    fn string(&mut self, text: &str, indent: usize, key: bool) {
        match style(text, key) {
            Style::Plain => self.folded(text, indent, key, |out, c| out.push(c)),
            Style::Single => {
                self.text.push('\'');
                self.folded(text, indent, key, |out, c| match c {
                    '\'' => out.push_str("''"),
                    c => out.push(c),
                });
                self.text.push('\'');
            }
            Style::Double => self.double(text, indent, key),
            Style::Literal => self.literal(text, indent),
        }
    }

    /// Text whose blanks may become line ends.
    fn folded(&mut self, text: &str, indent: usize, key: bool, push: fn(&mut String, char)) {
        let mut before = ' ';
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let lone = c == ' ' && before != ' ' && rest.peek().is_some_and(|next| *next != ' ');
            if lone && !key && self.column() > WIDTH {
                self.newline();
                self.spaces(indent);
            } else {
                push(&mut self.text, c);
            }
            before = c;
        }
    }

    fn double(&mut self, text: &str, indent: usize, key: bool) {
        self.text.push('"');
        let mut before = ' ';
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let breakable = c == ' ' && before != ' ' && rest.peek().is_some();
            match c {
                ' ' if breakable && !key && self.column() > WIDTH => {
                    self.newline();
                    self.spaces(indent);
                    if rest.peek() == Some(&' ') {
                        self.text.push('\\');
                    }
                }
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\t' => self.text.push_str("\\t"),
                '\r' => self.text.push_str("\\r"),
                '\0' => self.text.push_str("\\0"),
                '\u{1b}' => self.text.push_str("\\e"),
                c if printable(c) => self.text.push(c),
                c if (c as u32) < 0x100 => self.text.push_str(&format!("\\x{:02X}", c as u32)),
                c if (c as u32) < 0x1_0000 => self.text.push_str(&format!("\\u{:04X}", c as u32)),
                c => self.text.push_str(&format!("\\U{:08X}", c as u32)),
            }
            before = c;
        }
        self.text.push('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.text.push('|');
        if text.starts_with([' ', '\n']) {
            self.text.push('2');
        }
        let body = match text.strip_suffix('\n') {
            None => {
                self.text.push('-');
                text
            }
            Some(body) if body.is_empty() || body.ends_with('\n') => {
                self.text.push('+');
                body
            }
            Some(body) => body,
        };
        for line in body.split('\n') {
            self.newline();
            if !line.is_empty() {
                self.spaces(indent);
                self.text.push_str(line);
            }
        }
    }

    fn spaces(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }

    fn newline(&mut self) {
        self.text.push('\n');
        self.line_start = self.text.len();
    }

    fn column(&self) -> usize {
        self.text.get(self.line_start..).map_or(0, |line| line.chars().count())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str, key: bool) -> Style {
    if resolves(text) {
        return Style::Double;
    }
    let special = text.chars().any(|c| c != '\n' && !printable(c));
    if text.contains('\n') {
        let trailing_blank = text.split('\n').any(|line| line.ends_with(' '));
        return if key || special || trailing_blank { Style::Double } else { Style::Literal };
    }
    match () {
        () if special => Style::Double,
        () if plain_allowed(text) => Style::Plain,
        () => Style::Single,
    }
}

fn plain_allowed(text: &str) -> bool {
    if text.starts_with(' ') || text.ends_with(' ') || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let blank_follows = rest.peek().is_none_or(|next| *next == ' ');
        let bad = match (before, c) {
            (
                None,
                ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`',
            ) => true,
            (None, '-' | '?' | ':') | (Some(_), ':') => blank_follows,
            (Some(' '), '#') => true,
            _ => false,
        };
        if bad {
            return false;
        }
        before = Some(c);
    }
    true
}

fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether plain text would be read as something else than text, by any reader of YAML 1.1 or 1.2.
fn resolves(text: &str) -> bool {
    const WORDS: [&str; 12] =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null", ".nan", ".inf", "~"];
    if text.is_empty()
        || matches!(text, "<<" | "=" | "+.inf" | "-.inf" | "+.Inf" | "-.Inf" | "+.INF" | "-.INF")
    {
        return true;
    }
    if text.len() <= 5 && WORDS.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return true;
    }
    let first = text.as_bytes().first().copied().unwrap_or_default();
    matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.')
        && (number(text) || sexagesimal(text) || timestamp(text))
}

fn number(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)] {
        if let Some(digits) = unsigned.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        }
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at).unwrap_or_default(), unsigned.get(at + 1..)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_good = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_good = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_good && exponent_good
}

/// `12:30:45`, which YAML 1.1 reads as a number.
fn sexagesimal(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let mut more = false;
    let good = parts.all(|part| {
        more = true;
        let whole = part.split('.').next().unwrap_or_default();
        !whole.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'_'))
    });
    more && good && !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let date = (0..4).all(digit) && bytes.get(4) == Some(&b'-') && digit(5);
    date && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TtZz+ ".contains(&byte))
}
