//! An expression that was checked: names are places, and calls know the functions that they may mean.

use std::sync::Arc;

use super::functions::Overload;
use super::syntax::{Access, FoldKind};
use super::types::Type;
use super::value::{Key, Value};

/// A part of an expression that was checked.
#[derive(Debug)]
pub(super) struct Step {
    pub kind: StepKind,
    pub result: Type,
}

#[derive(Debug)]
pub(super) enum StepKind {
    Literal(Value<'static>),
    /// A variable of the environment.
    Global(usize),
    /// A variable of a loop, counted from the outermost.
    Local(usize),
    Select {
        of: Box<Step>,
        key: Key,
        access: Access,
    },
    Call {
        overloads: Vec<&'static Overload>,
        arguments: Vec<Step>,
    },
    /// Whether an item is optional, and the item.
    List(Vec<(bool, Step)>),
    Map(Vec<(bool, Step, Step)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, bool, Step)>,
    },
    Logic {
        any: bool,
        terms: Vec<Step>,
    },
    Choice(Box<[Step; 3]>),
    Fold(Box<Fold>),
    OptionalMap {
        of: Box<Step>,
        body: Box<Step>,
        flat: bool,
    },
}

/// A loop. Its variables are the locals behind those around it.
#[derive(Debug)]
pub(super) struct Fold {
    pub kind: FoldKind,
    pub range: Step,
    pub two: bool,
    pub filter: Option<Step>,
    pub body: Step,
}

// === impl Step ===

impl Step {
    /// Drops the types: evaluation has no need of them, and those of a large schema are large.
    pub fn forget_types(&mut self) {
        self.result = Type::Dyn;
        self.parts().into_iter().for_each(Step::forget_types);
    }

    fn parts(&mut self) -> Vec<&mut Step> {
        match &mut self.kind {
            StepKind::Literal(_) | StepKind::Global(_) | StepKind::Local(_) => Vec::new(),
            StepKind::Select { of, .. } => vec![&mut **of],
            StepKind::Call { arguments, .. } => arguments.iter_mut().collect(),
            StepKind::List(items) => items.iter_mut().map(|(_, item)| item).collect(),
            StepKind::Map(entries) => entries.iter_mut().flat_map(|(_, key, value)| [key, value]).collect(),
            StepKind::Struct { fields, .. } => fields.iter_mut().map(|(_, _, field)| field).collect(),
            StepKind::Logic { terms, .. } => terms.iter_mut().collect(),
            StepKind::Choice(three) => three.iter_mut().collect(),
            StepKind::Fold(fold) => {
                let Fold { range, filter, body, .. } = &mut **fold;
                [range, body].into_iter().chain(filter).collect()
            }
            StepKind::OptionalMap { of, body, .. } => vec![&mut **of, &mut **body],
        }
    }
}
