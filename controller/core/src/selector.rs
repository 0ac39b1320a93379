//! Label selectors over typed objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels as objects carry them.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` selects `labels`. An empty selector selects everything; an unknown operator nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value_of = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| value_of(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = value_of(&requirement.key);
            let listed =
                || value.is_some_and(|value| requirement.values.iter().flatten().any(|each| each == value));
            match requirement.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a plain map of labels (a Service's selector) selects `labels`. An empty one selects nothing.
pub fn map_matches(selector: &Labels, labels: Option<&Labels>) -> bool {
    !selector.is_empty()
        && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether the selector would select every object.
pub fn selects_all(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn check(operator: &str, values: &[&str], label: Option<&str>, expected: bool) {
        let selector = LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "app".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|&value| value.to_owned()).collect()),
            }]),
            match_labels: None,
        };
        let labels = label.map(|value| Labels::from([("app".to_owned(), value.to_owned())]));
        assert_eq!(matches(&selector, labels.as_ref()), expected, "{operator} {values:?} {label:?}");
    }

    #[test]
    fn operators() {
        check("In", &["a", "b"], Some("b"), true);
        check("In", &["a"], None, false);
        check("NotIn", &["a"], Some("a"), false);
        check("NotIn", &["a"], None, true);
        check("Exists", &[], Some("x"), true);
        check("DoesNotExist", &[], Some("x"), false);
    }
}
