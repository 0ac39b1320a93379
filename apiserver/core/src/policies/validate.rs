//! Validating policies: a write is refused, or its writer warned, when it does not fulfil one.

use api::cel::Value as Cel;
use api::policy::{Compiled, Validation};
use api::status::{Cause, Status};

use super::evaluate::{Budget, Variables, View};
use super::{Binding, Policy, Scene, Write, parameters, validates};
use crate::call::Call;
use crate::failure::Refused;

/// A message that an expression makes may be so long, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// What a policy says against a write.
struct Denial {
    message: String,
    /// Empty where the policy gives none.
    reason: String,
}

/// Holds a write against the validating policies; returns the warnings of those that only warn.
///
/// # Errors
///
/// The refusal of the first policy that denies it.
pub(crate) fn validate(call: &Call<'_>, write: &Write<'_>) -> Result<Vec<String>, Refused> {
    let mut warnings = Vec::new();
    if !validates(call) {
        return Ok(warnings);
    }
    let scene = Scene::of(call)?;
    for (policy, bindings) in call.world.derived.policies().validating.bound() {
        if bindings.is_empty() {
            continue;
        }
        let Some(seen_as) = scene.wanted(call, write, &policy.constraints, false) else { continue };
        let view = View::new(call, write, &scene, seen_as);
        for binding in bindings {
            if scene.wanted(call, write, &binding.constraints, true).is_none() {
                continue;
            }
            for denial in denials(call, policy, binding, &view) {
                if denial.is_configuration || binding.does("Deny") {
                    return Err(refusal(call, write, policy, binding, denial.denial));
                }
                if binding.does("Warn") {
                    warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.denial.message
                    ));
                }
            }
        }
    }
    Ok(warnings)
}

/// A denial, and whether it is about the policy itself: then it refuses whatever the binding does.
struct Found {
    denial: Denial,
    is_configuration: bool,
}

/// What a policy says against a write with the parameters of one binding.
fn denials(call: &Call<'_>, policy: &Policy, binding: &Binding, view: &View<'_>) -> Vec<Found> {
    let of_configuration = |why: String| match policy.is_ignored {
        true => Vec::new(),
        false => {
            let denial = Denial { message: why, reason: String::new() };
            vec![Found { denial, is_configuration: true }]
        }
    };
    let compiled = match policy.compiled() {
        Ok(compiled) => compiled,
        Err(fault) => return of_configuration(format!("failed to configure policy: {fault}")),
    };
    let parameters = match parameters::collect(call, policy, binding) {
        Ok(parameters) => parameters,
        Err(fault) => return of_configuration(format!("failed to configure binding: {fault}")),
    };
    let mut found = Vec::new();
    for params in &parameters {
        let variables = view.variables(compiled, params);
        let denied = evaluate(policy, compiled, &variables);
        found.extend(denied.into_iter().map(|denial| Found { denial, is_configuration: false }));
        if let Err(fault) = annotate(compiled, &variables)
            && !policy.is_ignored
        {
            let denial = Denial { message: fault, reason: String::new() };
            found.push(Found { denial, is_configuration: true });
        }
    }
    found
}

fn evaluate(policy: &Policy, compiled: &Compiled, variables: &Variables<'_>) -> Vec<Denial> {
    // What cannot be evaluated denies, unless the policy says that it is to be ignored.
    let fault = |message: String| (!policy.is_ignored).then_some(Denial { message, reason: String::new() });
    match variables.all_hold(&compiled.conditions) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return fault(why).into_iter().collect(),
    }
    let mut budget = Budget::new();
    let mut denials = Vec::new();
    for validation in &compiled.validations {
        let expression = &validation.expression;
        match variables.value(&expression.program, &expression.text, &mut budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => denials.push(Denial {
                message: message(validation, variables, &mut budget),
                reason: validation.reason.to_string(),
            }),
            Err(why) => denials.extend(fault(why)),
        }
    }
    denials
}

/// What is said of a condition that does not hold.
fn message(validation: &Validation, variables: &Variables<'_>, budget: &mut Budget) -> String {
    let said = validation.message_expression.as_ref().and_then(|message| {
        match variables.value(message, &validation.expression.text, budget) {
            Ok(Cel::String(text)) => Some(text.trim().to_owned()),
            _ => None,
        }
    });
    let fits = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
    match said.filter(fits) {
        Some(said) => said,
        None if !validation.message.is_empty() => validation.message.to_string(),
        None => format!("failed expression: {}", validation.expression.text.trim()),
    }
}

/// Evaluates what is to be noted of a request: there is no log to note it in, but what cannot be evaluated refuses.
fn annotate(compiled: &Compiled, variables: &Variables<'_>) -> Result<(), String> {
    let mut budget = Budget::new();
    for annotation in &compiled.annotations {
        match variables.value(&annotation.program, &annotation.text, &mut budget)? {
            Cel::String(_) | Cel::Null => {}
            other => {
                return Err(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    annotation.text,
                    other.kind()
                ));
            }
        }
    }
    Ok(())
}

fn refusal(
    call: &Call<'_>,
    write: &Write<'_>,
    policy: &Policy,
    binding: &Binding,
    denial: Denial,
) -> Refused {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, denial.message
    );
    let (code, reason) = match denial.reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let mut status = Status::forbidden(call.resource, write.name, &message);
    (status.code, status.reason) = (code, reason);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { message, ..Cause::default() });
    }
    status.into()
}
