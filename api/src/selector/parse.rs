//! The text form of selectors.

use super::{FieldRequirement, Operator, ParseError, Requirement};

/// What the text is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Open,
    Close,
    Comma,
    Not,
    Equal,
    DoubleEqual,
    NotEqual,
    Greater,
    Less,
    End,
}

struct Tokens<'a> {
    rest: &'a str,
}

// === impl Token ===

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::Not => "!",
            Token::Equal => "=",
            Token::DoubleEqual => "==",
            Token::NotEqual => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::End => "",
        }
    }
}

// === impl Tokens ===

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        const SYMBOLS: [(&str, Token<'static>); 9] = [
            ("==", Token::DoubleEqual),
            ("!=", Token::NotEqual),
            ("=", Token::Equal),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        if self.rest.is_empty() {
            return Token::End;
        }
        for (symbol, token) in SYMBOLS {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                self.rest = rest;
                return token;
            }
        }
        let end = self.rest.find(|letter| " \t\r\n=!(),<>".contains(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word)
    }

    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }
}

fn unexpected(found: &Token<'_>, expected: &str) -> ParseError {
    ParseError::Requirement(format!("found '{}', expected: {expected}", found.text()))
}

/// The requirements of a label selector.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, ParseError> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            Token::Word(_) | Token::Not => {
                requirements.push(requirement(&mut tokens)?);
                match tokens.next() {
                    Token::End => break,
                    Token::Comma => match tokens.peek() {
                        Token::Word(_) | Token::Not => {}
                        found => return Err(unexpected(&found, "identifier after ','")),
                    },
                    found => return Err(unexpected(&found, "',' or 'end of string'")),
                }
            }
            Token::End => break,
            found => return Err(unexpected(&found, "!, identifier, or 'end of string'")),
        }
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(requirements)
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, ParseError> {
    let (negated, key) = match tokens.next() {
        Token::Not => (true, tokens.next()),
        token => (false, token),
    };
    let Token::Word(key) = key else { return Err(unexpected(&key, "identifier")) };
    if let Some(reason) = crate::name::qualified_name(key).into_iter().next() {
        return Err(ParseError::Key { key: key.to_owned(), reason });
    }
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(tokens.peek(), Token::End | Token::Comma) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let (operator, set) = match tokens.next() {
        Token::Equal | Token::DoubleEqual => (Operator::In, false),
        Token::NotEqual => (Operator::NotIn, false),
        Token::Greater => (Operator::GreaterThan, false),
        Token::Less => (Operator::LessThan, false),
        Token::Word("in") => (Operator::In, true),
        Token::Word("notin") => (Operator::NotIn, true),
        found => return Err(unexpected(&found, "in, notin, =, ==, !=, gt, lt")),
    };
    let values = if set { set_values(tokens)? } else { vec![exact_value(tokens)?] };
    Requirement::new(key, operator, values)
}

fn exact_value(tokens: &mut Tokens<'_>) -> Result<String, ParseError> {
    match tokens.peek() {
        Token::End | Token::Comma => Ok(String::new()),
        Token::Word(word) => {
            tokens.next();
            Ok(word.to_owned())
        }
        found => Err(unexpected(&found, "identifier")),
    }
}

fn set_values(tokens: &mut Tokens<'_>) -> Result<Vec<String>, ParseError> {
    match tokens.next() {
        Token::Open => {}
        found => return Err(unexpected(&found, "'('")),
    }
    let mut values = Vec::new();
    loop {
        match tokens.next() {
            Token::Word(word) => {
                values.push(word.to_owned());
                match tokens.next() {
                    Token::Comma if tokens.peek() == Token::Close => values.push(String::new()),
                    Token::Comma => {}
                    Token::Close => return Ok(values),
                    found => return Err(unexpected(&found, "',' or ')'")),
                }
            }
            Token::Comma => {
                values.push(String::new());
                if tokens.peek() == Token::Close {
                    values.push(String::new());
                }
            }
            Token::Close => {
                if values.is_empty() {
                    values.push(String::new());
                }
                return Ok(values);
            }
            found => return Err(unexpected(&found, "',', ')' or identifier")),
        }
    }
}

/// The requirements of a field selector.
pub(super) fn field_requirements(text: &str) -> Result<Vec<FieldRequirement>, ParseError> {
    let mut requirements = Vec::new();
    for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
        let found = [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .filter_map(|(operator, equal)| term.find(operator).map(|at| (at, operator, equal)))
            .min_by_key(|(at, operator, _)| (*at, usize::MAX - operator.len()));
        let Some((at, operator, equal)) = found else {
            return Err(ParseError::Field { selector: text.to_owned(), term: term.to_owned() });
        };
        let value = unescape(&term[at + operator.len()..])?;
        requirements.push(FieldRequirement { field: term[..at].to_owned(), equal, value });
    }
    Ok(requirements)
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut from, mut escaped) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[from..]);
    terms
}

fn unescape(text: &str) -> Result<String, ParseError> {
    if !text.contains(['\\', '=']) {
        return Ok(text.to_owned());
    }
    let mut value = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                Some(other) => return Err(ParseError::Escape(format!("invalid escape sequence: \\{other}"))),
                None => return Err(ParseError::Escape("invalid escape sequence: \\".to_owned())),
            },
            '=' => return Err(ParseError::Escape("unescaped character in value: =".to_owned())),
            letter => value.push(letter),
        }
    }
    Ok(value)
}

/// A value with commas, equals signs and backslashes escaped.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}
