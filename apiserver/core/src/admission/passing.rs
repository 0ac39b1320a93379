//! Documents that are not kept: what is created at a subresource, sizes, reviews, and what a connection is opened with. They go
//! before policies and webhooks as objects do: first before those that may change them, then before those that may refuse them.

use serde_json::Value;

use super::matching::Operation;
use super::reviewed::again;
use crate::body::Expected;
use crate::call::Call;
use crate::policies::{self, Round};
use crate::prepare::Planned;
use crate::webhooks::{self, Between, Write};

/// What is known of a document that is on its way.
#[derive(Clone, Copy)]
pub(crate) struct Passing<'a> {
    pub operation: Operation,
    /// Empty where it has none.
    pub name: &'a str,
    /// What it was before; null when it is new.
    pub old: &'a Value,
    /// What it is read as again when it was changed. Without a type it is taken as it is.
    pub expected: Option<Expected<'a>>,
}

// === impl Passing ===

impl<'a> Passing<'a> {
    /// A document that is created.
    pub fn created(name: &'a str, expected: Expected<'a>) -> Passing<'a> {
        Passing { operation: Operation::Create, name, old: &Value::Null, expected: Some(expected) }
    }

    /// Puts a document before all; returns what policies warn of.
    pub fn pass(&self, call: &Call<'_>, document: &mut Value) -> Planned<Vec<String>> {
        self.mutate(call, document)?;
        self.validate(call, document)
    }

    /// Puts a document before those that may change it.
    pub fn mutate(&self, call: &Call<'_>, document: &mut Value) -> Planned<()> {
        let renewed = |document: &mut Value| match self.expected {
            Some(expected) => again(expected, document),
            None => Ok(()),
        };
        let named = (self.operation, self.name);
        policies::mutate(call, named, (&mut *document, self.old), Round::First, &mut |document| {
            renewed(document)
        })?;
        if !webhooks::may_change(call) {
            return Ok(());
        }
        let mut write = self.write(document.take());
        let mut admitted = |document: &mut Value| {
            let seen = (document, self.old);
            policies::mutate(call, named, seen, Round::Again, &mut |document| renewed(document)).map(drop)
        };
        webhooks::mutate(call, &mut write, &mut Between { renewed: &renewed, admitted: &mut admitted })?;
        *document = write.object;
        Ok(())
    }

    /// Puts a document before those that may refuse it; returns what policies warn of.
    pub fn validate(&self, call: &Call<'_>, document: &Value) -> Planned<Vec<String>> {
        let Passing { operation, name, old, .. } = *self;
        let warnings = policies::validate(call, &policies::Write { operation, name, object: document, old })?;
        if webhooks::any(call) {
            webhooks::validate(call, &self.write(document.clone()))?;
        }
        Ok(warnings)
    }

    fn write(&self, object: Value) -> Write {
        Write { operation: self.operation, name: self.name.to_owned(), object, old: self.old.clone() }
    }
}
