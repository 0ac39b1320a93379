//! Checks labels and the selectors that choose by them.

use serde_json::Value;

use super::{Errors, Path, entries, list, text};
use crate::name;

pub fn check(labels: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in entries(labels) {
        errors.reasons(path, key, name::qualified_name(key));
        let value = text(value);
        errors.reasons(path, value, name::label_value(value));
    }
}

/// A label selector with `matchLabels` and `matchExpressions`.
pub fn check_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    check(&selector["matchLabels"], &path.field("matchLabels"), errors);
    let expressions = path.field("matchExpressions");
    for (index, expression) in list(&selector["matchExpressions"]).iter().enumerate() {
        let place = expressions.index(index);
        let values = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors
                    .required(&place.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    &place.field("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(
                &place.field("operator"),
                expression["operator"].clone(),
                "not a valid selector operator",
            ),
        }
        let key = text(&expression["key"]);
        errors.reasons(&place.field("key"), key, name::qualified_name(key));
        let path = place.field("values");
        for (index, value) in values.iter().enumerate() {
            let value = text(value);
            errors.reasons(&path.index(index), value, name::label_value(value));
        }
    }
}
