//! Checks the rules in the schema of a custom resource: that they can be read, that their types fit, and that they cannot
//! become too dear, however large an object is.

use serde_json::Value;

use super::{Errors, Path, entries, given, list, text};
use crate::schema::structural::{Compiled, Node, Rule, Uncompiled};

/// A rule may take so many steps at most, all values of an object taken together.
const RULE_LIMIT: u64 = 10_000_000;
/// All rules of a schema may.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// The bytes of the largest request.
const REQUEST: u64 = 3 * 1024 * 1024;
/// So many of the dearest rules are named when all together are too dear.
const NAMED: usize = 4;
const REASONS: &[&str] =
    &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What the rules of a schema cost.
#[derive(Default)]
struct Costs {
    total: u64,
    /// The dearest, with their places.
    dearest: Vec<(u64, String)>,
}

/// Where a node is.
#[derive(Clone)]
struct Around {
    /// How often there can be a value; nothing where there is no limit to it.
    times: Option<u64>,
    /// The list in which a value has no counterpart in the object as it was.
    uncorrelated: Option<String>,
    whole: bool,
}

/// All rules of a whole schema.
pub fn check(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut costs = Costs::default();
    let around = Around { times: Some(1), uncorrelated: None, whole: true };
    check_node(schema, path, &around, &mut costs, errors);
    if costs.total <= SCHEMA_LIMIT {
        return;
    }
    costs.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    for (_, place) in costs.dearest.iter().take(NAMED).filter(|(cost, _)| *cost >= SCHEMA_LIMIT / 100) {
        let detail =
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.add(crate::field::FieldError::forbidden(place.clone(), detail));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.forbidden(path, over(what, costs.total, SCHEMA_LIMIT));
}

fn check_node(schema: &Value, path: &Path<'_>, around: &Around, costs: &mut Costs, errors: &mut Errors) {
    if given(&schema["x-kubernetes-validations"]) {
        check_rules(schema, path, around, costs, errors);
    }
    let field = Around { whole: false, ..around.clone() };
    let properties = path.field("properties");
    for (name, below) in entries(&schema["properties"]) {
        check_node(below, &properties.entry(name), &embedded(&field, below), costs, errors);
    }
    let below = |most: &str| {
        let times = around.times.zip(schema[most].as_u64()).map(|(outer, own)| outer.saturating_mul(own));
        Around { times, ..field.clone() }
    };
    if schema["additionalProperties"].is_object() {
        let inner = below("maxProperties");
        let schema = &schema["additionalProperties"];
        check_node(schema, &path.field("additionalProperties"), &embedded(&inner, schema), costs, errors);
    }
    if schema["items"].is_object() {
        let mut inner = below("maxItems");
        if text(&schema["x-kubernetes-list-type"]) != "map" && inner.uncorrelated.is_none() {
            inner.uncorrelated = Some(path.to_string());
        }
        let schema = &schema["items"];
        check_node(schema, &path.field("items"), &embedded(&inner, schema), costs, errors);
    }
}

fn embedded(around: &Around, schema: &Value) -> Around {
    Around { whole: schema["x-kubernetes-embedded-resource"] == true, ..around.clone() }
}

fn check_rules(schema: &Value, path: &Path<'_>, around: &Around, costs: &mut Costs, errors: &mut Errors) {
    let node = Node::read(schema);
    let place = path.field("x-kubernetes-validations");
    for (at, rule) in list(&schema["x-kubernetes-validations"]).iter().enumerate() {
        let place = place.index(at);
        let (of_rule, of_message) = (place.field("rule"), place.field("messageExpression"));
        errors.optional_one_of(&place.field("reason"), &rule["reason"], REASONS);
        let message = text(&rule["message"]);
        if message.contains('\n') {
            errors.invalid(&place.field("message"), message, "message must not contain line breaks");
        }
        if given(&rule["messageExpression"]) && text(&rule["messageExpression"]).trim().is_empty() {
            errors.required(&of_message, "messageExpression must be non-empty if specified");
            continue;
        }
        if text(&rule["rule"]).trim().is_empty() {
            errors.required(&of_rule, "rule is not specified");
            continue;
        }
        let Some(read) = Rule::read(rule) else { continue };
        match read.compile(&node, around.whole) {
            Err(Uncompiled::Rule(fault)) => errors.invalid(&of_rule, text(&rule["rule"]), fault),
            Err(Uncompiled::Message(fault)) => {
                errors.invalid(&of_message, text(&rule["messageExpression"]), fault);
            }
            Ok(compiled) => {
                if let Some(list) = around.uncorrelated.as_ref().filter(|_| compiled.is_transition) {
                    let detail = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                    );
                    errors.invalid(&of_rule, text(&rule["rule"]), detail);
                }
                check_cost(&compiled, around, (&of_rule, &of_message), costs, errors);
            }
        }
    }
}

fn check_cost(
    compiled: &Compiled,
    around: &Around,
    (of_rule, of_message): (&Path<'_>, &Path<'_>),
    costs: &mut Costs,
    errors: &mut Errors,
) {
    let times = around.times.unwrap_or(REQUEST / (compiled.least_bytes + 1));
    let (rule, message) = compiled.most();
    let both = [
        Some((rule, of_rule, "estimated rule cost")),
        message.map(|cost| (cost, of_message, "estimated messageExpression cost")),
    ];
    for (cost, place, what) in both.into_iter().flatten() {
        let cost = cost.saturating_mul(times);
        if cost > RULE_LIMIT {
            errors.forbidden(place, over(what, cost, RULE_LIMIT));
        }
        costs.total = costs.total.saturating_add(cost);
        costs.dearest.push((cost, place.to_string()));
    }
}

/// How far a cost is above a limit, and what helps.
fn over(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        // Not "1.0x".
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
