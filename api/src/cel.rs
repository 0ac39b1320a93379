//! CEL, the language of conditions, with the libraries that Kubernetes has for it.
//!
//! An expression is read (`parser`), checked against the variables that there are (`check`), its worst cost reckoned
//! (`estimate`), and evaluated with a budget (`evaluate`). `functions` is the table of what it can call. Why this is not a
//! library of somebody else: ADR 011.
//!
//! ```
//! use api::cel::{Declared, Environment, Type, Value};
//!
//! let environment = Environment::new().with("count", Declared::plain(Type::Int));
//! let program = environment.compile("count + 1 < 10").unwrap();
//! let (answer, _) = program.evaluate([Value::Int(3)].as_slice(), 100);
//! assert!(matches!(answer, Ok(Value::Bool(true))));
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use declare::of_node;
pub use declare::of_resource;
pub use evaluate::Bindings;
pub use functions::{Authority, Question, Verdict};
pub use types::{Declared, Object, Type};
pub use value::{Answer, Fault, Value};

mod check;
mod declare;
mod document;
mod estimate;
mod evaluate;
mod functions;
mod lexer;
mod parser;
mod step;
mod syntax;
mod types;
mod value;

#[cfg(test)]
mod tests;

/// One evaluation may take so many steps.
pub const CALL_BUDGET: u64 = 1_000_000;
/// All evaluations for one object may.
pub const OBJECT_BUDGET: u64 = 10_000_000;

/// The variables that expressions can use.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(Box<str>, Arc<Declared>)>,
    /// Types of which expressions can build values.
    structs: Vec<&'static str>,
}

/// An expression that was checked, ready to be evaluated.
#[derive(Debug)]
pub struct Program {
    root: step::Step,
    result: Type,
    used: BTreeSet<usize>,
    most: u64,
}

// === impl Environment ===

impl Environment {
    /// Without any variable.
    pub fn new() -> Environment {
        Environment::default()
    }

    /// With one more variable. Its name may have dots.
    #[must_use]
    pub fn with(mut self, name: &str, declared: impl Into<Arc<Declared>>) -> Environment {
        self.variables.push((name.into(), declared.into()));
        self
    }

    /// With one more type of which expressions can build values, and of what is below it: `Object`, `Object.spec`.
    #[must_use]
    pub fn with_struct(mut self, name: &'static str) -> Environment {
        self.structs.push(name);
        self
    }

    /// The place of a variable, as [`Bindings`] are asked for it.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|(known, _)| **known == *name)
    }

    /// Reads and checks an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in the words of Kubernetes.
    pub fn compile(&self, text: &str) -> Result<Program, String> {
        let expr = parser::parse(text).map_err(|issue| syntax::render(text, &[issue]))?;
        let (mut root, used) = check::check(self, &expr).map_err(|issues| syntax::render(text, &issues))?;
        let most = estimate::most(self, &root);
        let result = root.result.clone();
        root.forget_types();
        Ok(Program { root, result, used, most })
    }
}

// === impl Program ===

impl Program {
    /// The type of the result.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// The most steps that it can take.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Whether it uses the variable at that place of its environment.
    pub fn uses(&self, place: usize) -> bool {
        self.used.contains(&place)
    }

    /// The value, and the steps that it took to find it, of which there may be no more than `budget`.
    pub fn evaluate<'a, B: Bindings<'a> + ?Sized>(&self, globals: &B, budget: u64) -> (Answer<'a>, u64) {
        let globals = &globals as &dyn Bindings<'a>;
        let mut evaluator = evaluate::Evaluator { globals, locals: Vec::new(), spent: 0, limit: budget };
        let answer = evaluator.value(&self.root);
        (answer, evaluator.spent)
    }
}
