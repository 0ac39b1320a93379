//! Conditions in CEL over whole documents, as the `matchConditions` of webhooks.

use serde_json::Value;

use crate::schema::structural;

/// Whether an expression holds with these variables; an error says why it cannot be evaluated.
pub fn holds(expression: &str, variables: &[(&str, &Value)]) -> Result<bool, String> {
    structural::holds(expression, variables)
}
