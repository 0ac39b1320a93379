//! Questions that an expression asks of who may do what.

use std::fmt;
use std::sync::Arc;

use super::super::value::{Answer, Fault, Value};
use super::{Cost, ONE, Opaque, Row, opaque, text};

/// Who answers what an expression asks.
pub trait Authority: fmt::Debug + Send + Sync {
    /// Whether somebody may do something: who makes the request, or a service account (namespace, name).
    fn decide(&self, account: Option<(&str, &str)>, question: &Question) -> Verdict;
}

/// What somebody wants to do.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The verb: of the API, or for a path of HTTP.
    pub verb: String,
    /// A path; empty where a resource is meant.
    pub path: String,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Whether they may.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// The variable `authorizer`.
#[derive(Clone, Debug)]
pub struct Authorizer<'a> {
    authority: &'a dyn Authority,
    account: Option<Arc<(String, String)>>,
}

/// A question that is being put together.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    authorizer: Authorizer<'a>,
    question: Question,
}

/// A check is dear: an expression has the budget for two.
const CHECK: Cost = Cost::Fixed(350_000);

pub(super) const ROWS: &[Row] = &[
    ("Authorizer.path(string) PathCheck", ONE, |a| {
        let authorizer = authorizer(&a[0])?.clone();
        let path = filled(&a[1], "path")?;
        let question = Question { path, ..Question::default() };
        Ok(Value::Opaque(Opaque::PathCheck(Arc::new(Check { authorizer, question }))))
    }),
    ("Authorizer.group(string) GroupCheck", ONE, |a| {
        let authorizer = authorizer(&a[0])?.clone();
        let question = Question { group: text(&a[1])?.to_owned(), ..Question::default() };
        Ok(Value::Opaque(Opaque::GroupCheck(Arc::new(Check { authorizer, question }))))
    }),
    ("Authorizer.serviceAccount(string, string) Authorizer", ONE, |a| {
        let (namespace, name) = (text(&a[1])?, text(&a[2])?);
        if !crate::name::is_dns1123_subdomain(name) {
            return Fault::other("Invalid service account name");
        }
        if !crate::name::is_dns1123_label(namespace) {
            return Fault::other("Invalid service account namespace");
        }
        let account = Some(Arc::new((namespace.to_owned(), name.to_owned())));
        Ok(Value::Opaque(Opaque::Authorizer(Authorizer { account, ..authorizer(&a[0])?.clone() })))
    }),
    ("GroupCheck.resource(string) ResourceCheck", ONE, |a| {
        let Opaque::GroupCheck(check) = opaque(&a[0])? else { return Err(Fault::NoOverload) };
        let mut check = (**check).clone();
        check.question.resource = filled(&a[1], "resource")?;
        Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
    }),
    ("ResourceCheck.subresource(string) ResourceCheck", ONE, |a| narrowed(a, |q| &mut q.subresource)),
    ("ResourceCheck.namespace(string) ResourceCheck", ONE, |a| narrowed(a, |q| &mut q.namespace)),
    ("ResourceCheck.name(string) ResourceCheck", ONE, |a| narrowed(a, |q| &mut q.name)),
    // Rules of RBAC do not look at selectors.
    ("ResourceCheck.fieldSelector(string) ResourceCheck", ONE, |a| Ok(a[0].clone())),
    ("ResourceCheck.labelSelector(string) ResourceCheck", ONE, |a| Ok(a[0].clone())),
    ("PathCheck.check(string) Decision", CHECK, check),
    ("ResourceCheck.check(string) Decision", CHECK, check),
    ("Decision.allowed() bool", ONE, |a| Ok(Value::Bool(decision(&a[0])?.allowed))),
    ("Decision.reason() string", ONE, |a| Ok(Value::text(&decision(&a[0])?.reason))),
    // A decision is taken on what the server itself knows: it does not fail.
    ("Decision.errored() bool", ONE, |a| decision(&a[0]).map(|_| Value::Bool(false))),
    ("Decision.error() string", ONE, |a| decision(&a[0]).map(|_| Value::text(""))),
];

// === impl Value ===

impl<'a> Value<'a> {
    /// The variable `authorizer`.
    pub fn authorizer(authority: &'a dyn Authority) -> Value<'a> {
        Value::Opaque(Opaque::Authorizer(Authorizer { authority, account: None }))
    }

    /// The variable `authorizer.requestResource`: the question about a resource, without its verb.
    pub fn request_resource(authority: &'a dyn Authority, question: Question) -> Value<'a> {
        let authorizer = Authorizer { authority, account: None };
        Value::Opaque(Opaque::ResourceCheck(Arc::new(Check { authorizer, question })))
    }
}

fn authorizer<'v, 'a>(value: &'v Value<'a>) -> Result<&'v Authorizer<'a>, Fault> {
    match opaque(value)? {
        Opaque::Authorizer(authorizer) => Ok(authorizer),
        _ => Err(Fault::NoOverload),
    }
}

fn decision<'v>(value: &'v Value<'_>) -> Result<&'v Verdict, Fault> {
    match opaque(value)? {
        Opaque::Decision(verdict) => Ok(verdict),
        _ => Err(Fault::NoOverload),
    }
}

fn filled(value: &Value<'_>, what: &str) -> Result<String, Fault> {
    match text(value)? {
        text if text.trim().is_empty() => Err(Fault::Other(format!("{what} must not be empty"))),
        text => Ok(text.to_owned()),
    }
}

fn narrowed<'a>(a: &[Value<'a>], field: fn(&mut Question) -> &mut String) -> Answer<'a> {
    let Opaque::ResourceCheck(check) = opaque(&a[0])? else { return Err(Fault::NoOverload) };
    let mut check = (**check).clone();
    *field(&mut check.question) = text(&a[1])?.to_owned();
    Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
}

fn check<'a>(a: &[Value<'a>]) -> Answer<'a> {
    let (Opaque::PathCheck(check) | Opaque::ResourceCheck(check)) = opaque(&a[0])? else {
        return Err(Fault::NoOverload);
    };
    let question = Question { verb: text(&a[1])?.to_owned(), ..check.question.clone() };
    let account = check.authorizer.account.as_deref().map(|(namespace, name)| (&**namespace, &**name));
    let verdict = check.authorizer.authority.decide(account, &question);
    Ok(Value::Opaque(Opaque::Decision(Arc::new(verdict))))
}
