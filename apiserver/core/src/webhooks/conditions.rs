//! The `matchConditions` of webhooks: expressions in CEL that narrow which requests they are asked about.

use serde_json::Value;

/// Whether all conditions (names and expressions) hold for a request. One that does not hold decides, whatever the others
/// come to; else one that cannot be evaluated is an error.
pub(super) fn match_conditions(
    conditions: &[(String, String)],
    (object, old): &(Value, Value),
    request: &Value,
) -> Result<bool, String> {
    let variables = [("object", object), ("oldObject", old), ("request", request)];
    let mut failed = Vec::new();
    for (name, expression) in conditions {
        match api::condition::holds(expression, &variables) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    match failed.is_empty() {
        true => Ok(true),
        false => Err(format!("match condition failed to evaluate: {}", failed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(expressions: &[&str], expected: Result<bool, &str>) {
        let conditions: Vec<_> =
            expressions.iter().map(|text| ("c".to_owned(), (*text).to_owned())).collect();
        let seen = (
            json!({"metadata": {"name": "a", "labels": {"app": "web"}}, "spec": {"replicas": 3}}),
            Value::Null,
        );
        let request = json!({"operation": "CREATE", "userInfo": {"username": "ann", "groups": ["dev"]}});
        match (match_conditions(&conditions, &seen, &request), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{expressions:?}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{expressions:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        check(&["object.spec.replicas > 2", "request.operation == 'CREATE'"], Ok(true));
        check(&["object.spec.replicas > 5", "true"], Ok(false));
        check(&["'dev' in request.userInfo.groups"], Ok(true));
        check(&["oldObject == null"], Ok(true));
        check(&["object.metadata.labels.app == 'web'"], Ok(true));
    }

    #[test]
    fn a_condition_that_does_not_hold_outweighs_one_that_fails() {
        check(&["object.spec.missing > 2"], Err("c: "));
        check(&["object.spec.missing > 2", "false"], Ok(false));
    }
}
