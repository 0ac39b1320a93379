//! Admission policies: the expressions of ValidatingAdmissionPolicies and MutatingAdmissionPolicies, and the variables that they
//! have.
//!
//! A policy is compiled when it is written, to be checked, and once more when it is used first.

use std::sync::Arc;

use serde_json::Value;

use crate::cel::{Declared, Environment, Object, Program, Type};
use crate::field::FieldError;

/// The places of the variables that all expressions have, as they are bound.
pub mod place {
    /// `object`: what the request makes.
    pub const OBJECT: usize = 0;
    /// `oldObject`: what was there before.
    pub const OLD: usize = 1;
    /// `request`: the request itself.
    pub const REQUEST: usize = 2;
    /// `namespaceObject`: the namespace of the object.
    pub const NAMESPACE: usize = 3;
    /// `authorizer`: what the user may do.
    pub const AUTHORIZER: usize = 4;
    /// `authorizer.requestResource`: what the user may do with the object.
    pub const REQUEST_RESOURCE: usize = 5;
    /// `params`: an object that the binding names. Without a `paramKind` no expression can name it.
    pub const PARAMS: usize = 6;
    /// The first of `variables`.
    pub const VARIABLES: usize = 7;
}

/// The expressions of a policy, ready to be evaluated.
#[derive(Debug, Default)]
pub struct Compiled {
    /// `variables`, in their order. Each can use those before it.
    pub variables: Vec<Program>,
    /// `matchConditions`, with what they are called.
    pub conditions: Vec<Expression>,
    /// `validations`.
    pub validations: Vec<Validation>,
    /// `auditAnnotations`.
    pub annotations: Vec<Expression>,
    /// `mutations`.
    pub mutations: Vec<Mutation>,
}

/// An expression and its text.
#[derive(Debug)]
pub struct Expression {
    /// The text.
    pub text: Box<str>,
    /// The same, ready.
    pub program: Program,
}

/// A condition that an object must fulfil.
#[derive(Debug)]
pub struct Validation {
    /// The condition.
    pub expression: Expression,
    /// What is said when it does not hold; empty where nothing was written.
    pub message: Box<str>,
    /// What makes the message.
    pub message_expression: Option<Program>,
    /// The reason of the refusal; empty where none was written.
    pub reason: Box<str>,
}

/// A change of an object.
#[derive(Debug)]
pub struct Mutation {
    /// What makes the change.
    pub expression: Expression,
    /// It is a list of `JSONPatch`es, and not an `Object` to apply.
    pub is_patch: bool,
}

/// Something wrong with an expression of a policy.
#[derive(Debug)]
pub struct Fault {
    /// The field, such as `spec.validations[0].expression`.
    pub path: String,
    /// The expression.
    pub text: String,
    /// What is wrong.
    pub detail: String,
}

/// What the kinds of objects and of parameters declare; nothing where that is not known before they are there.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// That of the object.
    pub object: Option<Arc<Declared>>,
    /// That of the parameters.
    pub params: Option<Arc<Declared>>,
}

struct Compiler {
    environment: Environment,
    faults: Vec<Fault>,
}

/// The variables that expressions of a policy have, but for `variables`.
pub fn environment(kinds: &Kinds, has_params: bool) -> Environment {
    let any = || Arc::new(Declared::plain(Type::Dyn));
    let object = kinds.object.clone().unwrap_or_else(any);
    // A name with a space is one that no expression has.
    let params = if has_params { "params" } else { "no params" };
    Environment::new()
        .with("object", object.clone())
        .with("oldObject", object)
        .with("request", Declared::plain(request()))
        .with("namespaceObject", Declared::plain(namespace()))
        .with("authorizer", Declared::plain(Type::Opaque("kubernetes.authorization.Authorizer")))
        .with(
            "authorizer.requestResource",
            Declared::plain(Type::Opaque("kubernetes.authorization.ResourceCheck")),
        )
        .with(params, kinds.params.clone().unwrap_or_else(any))
}

/// Compiles the expressions of a policy's `spec`. What is wrong with some of them is told beside those that are right.
pub fn compile(spec: &Value, kinds: &Kinds) -> (Compiled, Vec<Fault>) {
    let mut compiler =
        Compiler { environment: environment(kinds, spec["paramKind"].is_object()), faults: Vec::new() };
    let mut compiled = Compiled::default();
    for (at, condition) in items(&spec["matchConditions"]) {
        let path = format!("spec.matchConditions[{at}].expression");
        compiled.conditions.extend(compiler.expression(&path, &condition["expression"], &[Type::Bool]));
    }
    for (at, variable) in items(&spec["variables"]) {
        let path = format!("spec.variables[{at}].expression");
        let program = compiler.expression(&path, &variable["expression"], &[]);
        // One that is wrong is of any type to those behind it.
        let kind = program.as_ref().map_or(Type::Dyn, |found| found.program.result().clone());
        let name = format!("variables.{}", text(&variable["name"]));
        compiler.environment = compiler.environment.with(&name, Declared::plain(kind));
        compiled.variables.extend(program.map(|found| found.program));
    }
    for (at, validation) in items(&spec["validations"]) {
        let path = format!("spec.validations[{at}].expression");
        let expression = compiler.expression(&path, &validation["expression"], &[Type::Bool]);
        let path = format!("spec.validations[{at}].messageExpression");
        let message_expression = match text(&validation["messageExpression"]) {
            "" => None,
            _ => compiler.expression(&path, &validation["messageExpression"], &[Type::String]),
        };
        let Some(expression) = expression else { continue };
        compiled.validations.push(Validation {
            expression,
            message: text(&validation["message"]).trim().into(),
            message_expression: message_expression.map(|found| found.program),
            reason: text(&validation["reason"]).into(),
        });
    }
    for (at, annotation) in items(&spec["auditAnnotations"]) {
        let path = format!("spec.auditAnnotations[{at}].valueExpression");
        let kinds = [Type::String, Type::Null];
        compiled.annotations.extend(compiler.expression(&path, &annotation["valueExpression"], &kinds));
    }
    compiler.environment = compiler.environment.with_struct("Object").with_struct("JSONPatch");
    for (at, mutation) in items(&spec["mutations"]) {
        compiled.mutations.extend(compiler.mutation(at, mutation));
    }
    (compiled, compiler.faults)
}

/// What is wrong with the expressions of a policy, as complaints about its fields.
pub(crate) fn errors(spec: &Value) -> Vec<FieldError> {
    let (_, faults) = compile(spec, &Kinds::default());
    faults.into_iter().map(|fault| FieldError::invalid(fault.path, fault.text, fault.detail)).collect()
}

// === impl Compiler ===

impl Compiler {
    fn expression(&mut self, path: &str, value: &Value, wanted: &[Type]) -> Option<Expression> {
        let text = text(value);
        // That there is one at all is checked elsewhere.
        if text.trim().is_empty() {
            return None;
        }
        let detail = match self.environment.compile(text) {
            Ok(program) => match mismatch(program.result(), wanted) {
                None => return Some(Expression { text: text.into(), program }),
                Some(detail) => detail,
            },
            Err(fault) => format!("compilation failed: {fault}"),
        };
        self.faults.push(Fault { path: path.to_owned(), text: text.to_owned(), detail });
        None
    }

    fn mutation(&mut self, at: usize, mutation: &Value) -> Option<Mutation> {
        let is_patch = text(&mutation["patchType"]) == "JSONPatch";
        let source = if is_patch { "jsonPatch" } else { "applyConfiguration" };
        let wanted = match is_patch {
            true => Type::Struct("JSONPatch".into()).list(),
            false => Type::Struct("Object".into()),
        };
        let path = format!("spec.mutations[{at}].{source}.expression");
        let expression = self.expression(&path, &mutation[source]["expression"], &[wanted])?;
        Some(Mutation { expression, is_patch })
    }
}

/// What is said of a result that is of none of the types that are wanted.
fn mismatch(found: &Type, wanted: &[Type]) -> Option<String> {
    let fits = |wanted: &Type| match (wanted, found) {
        (_, Type::Dyn) => true,
        // A list that may be empty.
        (Type::List(_), Type::List(of)) if matches!(**of, Type::Dyn | Type::Open(_)) => true,
        (wanted, found) => wanted == found,
    };
    if wanted.is_empty() || wanted.iter().any(fits) {
        return None;
    }
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    Some(match names.as_slice() {
        [one] => format!("must evaluate to {one} but got {found}"),
        several => format!("must evaluate to one of [{}] but got {found}", several.join(" ")),
    })
}

/// The type of `request`: an AdmissionRequest without the objects.
fn request() -> Type {
    let kind = |name: &str, last: &str| {
        Object::of(name, [("group", Type::String), ("version", Type::String), (last, Type::String)])
    };
    let version_kind = || kind("kubernetes.GroupVersionKind", "kind");
    let version_resource = || kind("kubernetes.GroupVersionResource", "resource");
    let user = Object::of(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::String.list()),
            ("extra", Type::String.list().map()),
        ],
    );
    Object::of(
        "kubernetes.AdmissionRequest",
        [
            ("kind", version_kind()),
            ("resource", version_resource()),
            ("subResource", Type::String),
            ("requestKind", version_kind()),
            ("requestResource", version_resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The type of `namespaceObject`: of a Namespace what does not change from one moment to the next.
fn namespace() -> Type {
    let metadata = Object::of(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("labels", Type::String.map()),
            ("annotations", Type::String.map()),
            ("uid", Type::String),
            ("creationTimestamp", Type::Dyn),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Dyn),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::String.list()),
        ],
    );
    let spec = Object::of("kubernetes.NamespaceSpec", [("finalizers", Type::String.list())]);
    let status = Object::of("kubernetes.NamespaceStatus", [("phase", Type::String)]);
    Object::of("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(spec: Value) -> Vec<String> {
        let (_, faults) = compile(&spec, &Kinds::default());
        faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.detail)).collect()
    }

    #[test]
    fn expressions_are_checked_with_the_variables_that_they_have() {
        let spec = json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "a", "expression": "request.operation == 'CREATE'"}],
            "variables": [
                {"name": "limit", "expression": "int(params.data.limit)"},
                {"name": "ok", "expression": "object.spec.replicas <= variables.limit"},
            ],
            "validations": [
                {"expression": "variables.ok && namespaceObject.metadata.name != 'x'",
                    "messageExpression": "'at most ' + string(variables.limit)"},
                {"expression": "authorizer.requestResource.check('delete').allowed()"},
            ],
            "auditAnnotations": [{"key": "a", "valueExpression": "request.userInfo.username"}],
        });
        assert_eq!(faults(spec), Vec::<String>::new());
    }

    #[test]
    fn expressions_that_are_wrong_are_told_with_their_fields() {
        let spec = json!({
            "variables": [{"name": "a", "expression": "1"}],
            "validations": [
                {"expression": "variables.a"},
                {"expression": "params.x == 1"},
                {"expression": "variables.b == 1"},
                {"expression": "request.x == 1", "messageExpression": "1"},
            ],
        });
        let faults = faults(spec);
        assert_eq!(faults[0], "spec.validations[0].expression: must evaluate to bool but got int");
        assert!(faults[1].contains("undeclared reference to 'params' (in container '')"), "{}", faults[1]);
        assert!(faults[2].contains("undeclared reference to 'variables' (in container '')"), "{}", faults[2]);
        assert!(faults[3].contains("undefined field 'x'"), "{}", faults[3]);
        assert_eq!(faults[4], "spec.validations[3].messageExpression: must evaluate to string but got int");
    }

    #[test]
    fn mutations_make_objects_and_patches() {
        let mutation = |kind: &str, source: &str, expression: &str| {
            faults(json!({"mutations": [{"patchType": kind, source: {"expression": expression}}]}))
        };
        let apply = |expression: &str| mutation("ApplyConfiguration", "applyConfiguration", expression);
        let patch = |expression: &str| mutation("JSONPatch", "jsonPatch", expression);
        assert!(apply("Object{spec: Object.spec{replicas: 3}}").is_empty());
        assert!(patch("[JSONPatch{op: 'add', path: '/metadata/labels/a', value: 'b'}]").is_empty());
        assert!(patch("[]").is_empty());
        assert!(
            apply("Object{spec: Object.status{}}")[0].contains(
                "expected type of field 'spec' is 'Object.spec' but provided type is 'Object.status'"
            )
        );
        assert!(apply("{'spec': 1}")[0].contains("must evaluate to Object but got map(string, int)"));
        assert!(apply("Other{}")[0].contains("undeclared reference to 'Other'"));
    }
}
