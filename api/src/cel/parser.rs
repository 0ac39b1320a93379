//! Reads an expression: the grammar of CEL, and its macros.

use std::sync::Arc;

use super::lexer::{Token, TokenKind, tokens};
use super::syntax::{Access, Expr, Fold, FoldKind, Issue, Item, Kind};
use super::value::Value;

/// So many expressions may be within each other: what a thread's stack has room for, with much to spare.
const MAX_DEPTH: usize = 100;
/// An expression may be so long, in letters.
const MAX_LENGTH: usize = 100_000;
/// What an operand may begin with, in the words of CEL's own parser.
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// Words that are no names, besides the literals and operators that are words.
pub(super) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expr, Issue> {
    let length = text.chars().count();
    if length > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_LENGTH}");
        return Err(Issue { at: 0, message });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, open: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        TokenKind::End => Ok(expr),
        _ => Err(parser.mismatch("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// How many expressions are being read.
    open: usize,
}

type Parsed = Result<Expr, Issue>;

// === impl Parser ===

impl Parser {
    fn token(&self) -> &Token {
        // The last one is the end, and nobody goes beyond it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> &TokenKind {
        &self.token().kind
    }

    fn at(&self) -> usize {
        self.token().at
    }

    fn sees(&self, sign: &str) -> bool {
        matches!(self.peek(), TokenKind::Sign(found) if *found == sign)
    }

    /// Takes a sign, if it is the next word.
    fn take(&mut self, sign: &str) -> bool {
        let found = self.sees(sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Issue> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(self.mismatch(&format!("'{sign}'"))),
        }
    }

    fn mismatch(&self, expected: &str) -> Issue {
        let found = match self.peek() {
            TokenKind::End => "<EOF>".to_owned(),
            TokenKind::Word(word) => word.to_string(),
            TokenKind::Sign(sign) => (*sign).to_owned(),
            TokenKind::Literal(value) => value.to_string(),
        };
        Issue {
            at: self.at(),
            message: format!("Syntax error: mismatched input '{found}' expecting {expected}"),
        }
    }

    /// An expression of that kind, if it is not too deep.
    fn made(&self, at: usize, kind: Kind) -> Parsed {
        let expr = Expr::new(at, kind);
        if expr.depth > MAX_DEPTH { Err(too_deep(at)) } else { Ok(expr) }
    }

    fn expression(&mut self) -> Parsed {
        self.open += 1;
        if self.open > MAX_DEPTH {
            return Err(too_deep(self.at()));
        }
        let condition = self.binary(0)?;
        let at = self.at();
        let expr = if self.take("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            self.made(at, Kind::Choice(Box::new([condition, yes, no])))?
        } else {
            condition
        };
        self.open -= 1;
        Ok(expr)
    }

    /// Operands and operators of at least that rank.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let at = self.at();
            let (sign, rank) = match self.peek() {
                TokenKind::Sign(sign) => match rank(sign) {
                    Some(rank) if rank >= least => (*sign, rank),
                    _ => return Ok(left),
                },
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.binary(rank + 1)?;
            left = self.joined(at, sign, left, right)?;
        }
    }

    fn joined(&self, at: usize, sign: &str, left: Expr, right: Expr) -> Parsed {
        let any = sign == "||";
        match (sign, left.kind) {
            // Several of them are one: so many terms are no depth.
            ("||" | "&&", Kind::Logic { any: known, mut terms }) if known == any => {
                terms.push(right);
                self.made(left.at, Kind::Logic { any, terms })
            }
            ("||" | "&&", kind) => {
                let terms = vec![Expr { kind, ..left }, right];
                self.made(at, Kind::Logic { any, terms })
            }
            (_, kind) => {
                let name = if sign == "in" { "@in".into() } else { format!("_{sign}_").into() };
                let arguments = vec![Expr { kind, ..left }, right];
                self.made(at, Kind::Call { name, target: None, arguments })
            }
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let mut count = 0;
        let sign = if self.sees("!") { "!" } else { "-" };
        while self.sees(sign) {
            let is_number = |token: Option<&Token>| {
                matches!(
                    token.map(|token| &token.kind),
                    Some(TokenKind::Literal(Value::Int(_) | Value::Double(_)))
                )
            };
            if sign == "-" && is_number(self.tokens.get(self.next + 1)) {
                break;
            }
            self.next += 1;
            count += 1;
        }
        let operand = self.member()?;
        match count % 2 {
            0 => Ok(operand),
            _ => {
                let name = if sign == "!" { "!_" } else { "-_" };
                self.made(at, Kind::Call { name: name.into(), target: None, arguments: vec![operand] })
            }
        }
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let at = self.at();
            if self.take(".") {
                let optional = self.take("?");
                let name = self.name(true)?;
                let open = self.at();
                expr = if !optional && self.take("(") {
                    let arguments = self.arguments(")")?;
                    self.call(open, name, Some(expr), arguments)?
                } else {
                    let access = if optional { Access::Optional } else { Access::Value };
                    self.made(at, Kind::Select { of: Box::new(expr), name, access })?
                };
            } else if self.take("[") {
                let name = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                expr = self
                    .made(at, Kind::Call { name: name.into(), target: None, arguments: vec![expr, index] })?;
            } else if self.sees("{") && expr.qualified().is_some() {
                let name = expr.qualified().unwrap_or_default().into();
                self.next += 1;
                expr = self.structure(at, name)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        match self.peek().clone() {
            TokenKind::Literal(Value::Int(i64::MIN)) => {
                Err(Issue { at, message: "invalid int literal".into() })
            }
            TokenKind::Literal(value) => {
                self.next += 1;
                self.made(at, Kind::Literal(value))
            }
            TokenKind::Sign("-") => {
                self.next += 1;
                let value = match self.peek() {
                    TokenKind::Literal(Value::Int(value)) => Value::Int(value.wrapping_neg()),
                    TokenKind::Literal(Value::Double(value)) => Value::Double(-value),
                    _ => return Err(self.mismatch(OPERAND)),
                };
                self.next += 1;
                self.made(at, Kind::Literal(value))
            }
            TokenKind::Word(_) => {
                let name = self.name(false)?;
                let open = self.at();
                match self.take("(") {
                    true => {
                        let arguments = self.arguments(")")?;
                        self.call(open, name, None, arguments)
                    }
                    false => self.made(at, Kind::Ident(name)),
                }
            }
            // A name from the root: there is no other container.
            TokenKind::Sign(".")
                if matches!(self.tokens.get(self.next + 1), Some(Token { kind: TokenKind::Word(_), .. })) =>
            {
                self.next += 1;
                self.primary()
            }
            TokenKind::Sign("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Sign("[") => {
                self.next += 1;
                let items = self.items("]", |parser| parser.item())?;
                self.made(at, Kind::List(items))
            }
            TokenKind::Sign("{") => {
                self.next += 1;
                let entries = self.items("}", |parser| {
                    let key = parser.item()?;
                    parser.expect(":")?;
                    Ok((key, parser.expression()?))
                })?;
                self.made(at, Kind::Map(entries))
            }
            _ => Err(self.mismatch(OPERAND)),
        }
    }

    fn name(&mut self, after_dot: bool) -> Result<Arc<str>, Issue> {
        let at = self.at();
        match self.peek().clone() {
            TokenKind::Word(word) if !after_dot && RESERVED.contains(&&*word) => {
                Err(Issue { at, message: format!("reserved identifier: {word}") })
            }
            TokenKind::Word(word) => {
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.mismatch("IDENTIFIER")),
        }
    }

    /// Entries with commas between them, up to a bracket.
    fn items<T>(
        &mut self,
        close: &str,
        one: impl Fn(&mut Parser) -> Result<T, Issue>,
    ) -> Result<Vec<T>, Issue> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(one(self)?);
            if !self.sees(close) {
                self.expect(",")?;
            }
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item, Issue> {
        let optional = self.take("?");
        Ok(Item { optional, value: self.expression()? })
    }

    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Issue> {
        self.items(close, Parser::expression)
    }

    fn structure(&mut self, at: usize, name: Arc<str>) -> Parsed {
        let fields = self.items("}", |parser| {
            let optional = parser.take("?");
            let field = match parser.peek().clone() {
                // A name in quotes is one that is no word.
                TokenKind::Literal(Value::String(text)) => {
                    parser.next += 1;
                    Arc::from(&*text)
                }
                _ => parser.name(true)?,
            };
            parser.expect(":")?;
            Ok((field, Item { optional, value: parser.expression()? }))
        })?;
        self.made(at, Kind::Struct { name, fields })
    }

    /// A call, which may be a macro.
    fn call(&mut self, at: usize, name: Arc<str>, target: Option<Expr>, mut arguments: Vec<Expr>) -> Parsed {
        let kind = match (&*name, target) {
            ("has", None) if arguments.len() == 1 => {
                let argument = arguments.remove(0);
                match argument.kind {
                    Kind::Select { of, name, access: Access::Value } => {
                        Kind::Select { of, name, access: Access::Presence }
                    }
                    _ => {
                        return Err(Issue {
                            at: argument.at,
                            message: "invalid argument to has() macro".into(),
                        });
                    }
                }
            }
            (_, Some(target)) => match (fold_kind(&name, arguments.len()), arguments.len()) {
                (Some(kind), _) => Kind::Fold(Box::new(fold(kind, &name, target, arguments)?)),
                (None, 2) if matches!(&*name, "optMap" | "optFlatMap") => {
                    let body = Box::new(arguments.remove(1));
                    let variable = variable(&arguments[0])?;
                    let flat = &*name == "optFlatMap";
                    Kind::OptionalMap { of: Box::new(target), variable, body, flat }
                }
                _ => Kind::Call { name, target: Some(Box::new(target)), arguments },
            },
            (_, None) => Kind::Call { name, target: None, arguments },
        };
        self.made(at, kind)
    }
}

/// How strongly an operator binds.
fn rank(sign: &str) -> Option<u8> {
    Some(match sign {
        "||" => 0,
        "&&" => 1,
        "==" | "!=" | "<=" | ">=" | "<" | ">" | "in" => 2,
        "+" | "-" => 3,
        "*" | "/" | "%" => 4,
        _ => return None,
    })
}

fn too_deep(at: usize) -> Issue {
    Issue { at, message: format!("expression recursion limit exceeded: {MAX_DEPTH}") }
}

/// Which loop a macro is, by its name and the number of its arguments.
fn fold_kind(name: &str, arguments: usize) -> Option<FoldKind> {
    Some(match (name, arguments) {
        ("all", 2 | 3) => FoldKind::All,
        ("exists", 2 | 3) => FoldKind::Exists,
        ("exists_one", 2) | ("existsOne", 2 | 3) => FoldKind::ExistsOne,
        ("map", 2 | 3) | ("transformList", 3 | 4) => FoldKind::Map,
        ("filter", 2) => FoldKind::Filter,
        ("transformMap", 3 | 4) => FoldKind::TransformMap,
        ("transformMapEntry", 3 | 4) => FoldKind::TransformMapEntry,
        _ => return None,
    })
}

fn fold(kind: FoldKind, name: &str, range: Expr, arguments: Vec<Expr>) -> Result<Fold, Issue> {
    // `map(x, filter, body)` has one variable; of all others the third argument makes the second one a variable.
    let two = arguments.len() > 2 && name != "map";
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().ok_or(Issue { at: range.at, message: "argument is missing".into() });
    let first = variable(&next()?)?;
    let second = if two { Some(variable(&next()?)?) } else { None };
    if second.as_ref() == Some(&first) {
        let message = format!("duplicate variable name: {first}");
        return Err(Issue { at: range.at, message });
    }
    let body = next()?;
    let (filter, body) = match next() {
        Ok(last) => (Some(body), last),
        Err(_) => (None, body),
    };
    Ok(Fold { kind, range, variable: first, second, filter, body })
}

fn variable(expr: &Expr) -> Result<Arc<str>, Issue> {
    match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(Issue { at: expr.at, message: "argument must be a simple name".into() }),
    }
}
