//! Nobody grants what they do not hold: writes of roles and bindings are held against the writer's own rules.

use api::status::Status;
use serde_json::Value;

use super::rbac::{GROUP, RoleRef, Rule, path_matches, resource_matches};
use super::{Attributes, authorize};
use crate::call::Call;
use crate::failure::Refused;
use crate::object::{items, meta};
use crate::user::MASTERS;

/// Checks a role or binding that is about to be written.
pub(crate) fn check(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Result<(), Refused> {
    if call.resource.group != GROUP || call.user.in_group(MASTERS) {
        return Ok(());
    }
    match &*call.resource.plural {
        "roles" | "clusterroles" => {
            let unchanged = old.is_some_and(|old| {
                old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]
            });
            if unchanged || may(call, "escalate", &call.resource.plural, meta(new, "name")) {
                return Ok(());
            }
            if new["aggregationRule"].is_object() {
                let all = everything();
                return covered(call, new, &all);
            }
            covered(call, new, &rules(&new["rules"]))
        }
        "rolebindings" | "clusterrolebindings" => {
            if old.is_some_and(|old| old["roleRef"] == new["roleRef"] && old["subjects"] == new["subjects"]) {
                return Ok(());
            }
            let text = |field: &str| new["roleRef"][field].as_str().unwrap_or_default().to_owned();
            let reference = RoleRef { kind: text("kind"), name: text("name") };
            let resource = if reference.kind == "Role" { "roles" } else { "clusterroles" };
            if may(call, "bind", resource, &reference.name) {
                return Ok(());
            }
            let granted = call.world.derived.rules().role(&reference, call.namespace()).ok_or_else(|| {
                Refused::from(Status::not_found(
                    api::status::ResourceName { group: GROUP, resource },
                    &reference.name,
                ))
            })?;
            covered(call, new, granted)
        }
        _ => Ok(()),
    }
}

fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

fn rules(value: &Value) -> Vec<Rule> {
    items(value).iter().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

fn may(call: &Call<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        verb,
        is_resource: true,
        group: GROUP,
        resource,
        namespace: call.namespace(),
        name,
        ..Attributes::default()
    };
    authorize(&call.world, call.user, &attributes).allowed()
}

fn covered(call: &Call<'_>, new: &Value, granted: &[Rule]) -> Result<(), Refused> {
    let own = call.world.derived.rules().rules_of(call.user, call.namespace());
    let missing: Vec<String> = granted
        .iter()
        .flat_map(split)
        .filter(|rule| !own.iter().any(|own| covers(own, rule)))
        .map(|r| show(&r))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.name,
        call.user.groups,
        missing.join("\n")
    );
    Err(call.forbidden(meta(new, "name"), why))
}

/// The rule in pieces of one verb on one thing each.
fn split(rule: &Rule) -> Vec<Rule> {
    let mut pieces = Vec::new();
    let names: Vec<Vec<String>> = match rule.resource_names.as_slice() {
        [] => vec![Vec::new()],
        names => names.iter().map(|name| vec![name.clone()]).collect(),
    };
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                pieces.extend(names.iter().map(|names| Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names: names.clone(),
                    non_resource_urls: Vec::new(),
                }));
            }
        }
        pieces.extend(rule.non_resource_urls.iter().map(|url| Rule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![url.clone()],
            ..Rule::default()
        }));
    }
    pieces
}

/// Whether a rule of the user's covers a piece.
fn covers(own: &Rule, piece: &Rule) -> bool {
    let all = |own: &[String], piece: &[String]| piece.iter().all(|p| own.iter().any(|o| o == "*" || o == p));
    if !all(&own.verbs, &piece.verbs) {
        return false;
    }
    if let Some(url) = piece.non_resource_urls.first() {
        return own.non_resource_urls.iter().any(|pattern| pattern == url || path_matches(pattern, url));
    }
    let named = own.resource_names.is_empty()
        || (!piece.resource_names.is_empty()
            && piece.resource_names.iter().all(|n| own.resource_names.contains(n)));
    named
        && all(&own.api_groups, &piece.api_groups)
        && piece.resources.iter().all(|resource| {
            let (plain, sub) = resource.split_once('/').unwrap_or((resource, ""));
            own.resources.iter().any(|o| o == resource || resource_matches(o, plain, sub))
        })
}

fn show(rule: &Rule) -> String {
    let quoted = |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    for (name, list) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            parts.push(format!("{name}:[{}]", quoted(list)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
