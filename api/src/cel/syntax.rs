//! An expression as it is written, and what is said of one that is wrong.

use std::fmt::Write as _;
use std::sync::Arc;

use super::value::Value;

/// An expression, and where it is in its text: the byte that stands for it.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub at: usize,
    pub kind: Kind,
    /// How many expressions are within each other.
    pub depth: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Value<'static>),
    Ident(Arc<str>),
    Select {
        of: Box<Expr>,
        name: Arc<str>,
        access: Access,
    },
    Call {
        name: Arc<str>,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    List(Vec<Item>),
    Map(Vec<(Item, Expr)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Item)>,
    },
    /// Several with `&&`, or with `||`.
    Logic {
        any: bool,
        terms: Vec<Expr>,
    },
    /// Condition, and what is meant if it holds and if not.
    Choice(Box<[Expr; 3]>),
    Fold(Box<Fold>),
    /// `optMap` and `optFlatMap`.
    OptionalMap {
        of: Box<Expr>,
        variable: Arc<str>,
        body: Box<Expr>,
        flat: bool,
    },
}

/// What a dot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `a.b`.
    Value,
    /// `a.?b`.
    Optional,
    /// `has(a.b)`.
    Presence,
}

/// An entry of a literal; an optional one, `?a`, is left out when it has no value.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub optional: bool,
    pub value: Expr,
}

/// A loop over a list or a map.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    pub kind: FoldKind,
    pub range: Expr,
    pub variable: Arc<str>,
    /// With two variables: index and item, or key and value.
    pub second: Option<Arc<str>>,
    pub filter: Option<Expr>,
    pub body: Expr,
}

/// What a loop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// A list of what the body says: `map`, `transformList`.
    Map,
    Filter,
    /// A map of the same keys.
    TransformMap,
    /// A map of the entries that the body says.
    TransformMapEntry,
}

/// Something wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Issue {
    pub at: usize,
    pub message: String,
}

/// Issues in the words and the form in which Kubernetes shows them: with the line and a mark under the place.
pub(super) fn render(text: &str, issues: &[Issue]) -> String {
    let mut out = String::new();
    for issue in issues {
        let before = text.get(..issue.at).unwrap_or(text);
        let number = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count();
        let line = text.lines().nth(number).unwrap_or_default();
        let newline = if out.is_empty() { "" } else { "\n" };
        // Writing to a text cannot fail.
        let _ = write!(
            out,
            "{newline}ERROR: <input>:{}:{}: {}\n | {line}\n | {}^",
            number + 1,
            column + 1,
            issue.message,
            ".".repeat(column)
        );
    }
    out
}

// === impl Expr ===

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Expr {
        let depth = 1 + kind.depth();
        Expr { at, kind, depth }
    }

    /// `a.b.c`, if it is nothing but names.
    pub fn qualified(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { of, name, access: Access::Value } => Some(format!("{}.{name}", of.qualified()?)),
            _ => None,
        }
    }
}

// === impl Kind ===

impl Kind {
    fn depth(&self) -> usize {
        fn deepest<'e>(several: impl IntoIterator<Item = &'e Expr>) -> usize {
            several.into_iter().map(|one| one.depth).max().unwrap_or(0)
        }
        match self {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { of, .. } => of.depth,
            Kind::Call { target, arguments, .. } => deepest(target.as_deref().into_iter().chain(arguments)),
            Kind::List(items) => deepest(items.iter().map(|item| &item.value)),
            Kind::Map(entries) => deepest(entries.iter().flat_map(|(key, value)| [&key.value, value])),
            Kind::Struct { fields, .. } => deepest(fields.iter().map(|(_, item)| &item.value)),
            Kind::Logic { terms, .. } => deepest(terms),
            Kind::Choice(three) => deepest(three.iter()),
            Kind::Fold(fold) => deepest([&fold.range, &fold.body].into_iter().chain(&fold.filter)),
            Kind::OptionalMap { of, body, .. } => deepest([&**of, &**body]),
        }
    }
}
