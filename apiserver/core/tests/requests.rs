//! Runs requests written as text against a state machine, and compares what comes back.
//!
//! A fixture is a list of steps. `as USER [GROUP…]` changes who asks; `now SECONDS` moves the clock; a request is
//! `METHOD PATH [BODY]`, sent with what `header NAME [VALUE]` has set, followed by `-> CODE` and the fields to compare: `path = value`, `path ~ part`, `!path`.
//! `webhook URL ANSWER` says what a webhook answers (a text: why it cannot be reached), `asked URL…` which ones the last request has
//! asked; the fields compared after it are those of the questions. `keep` does what the leading server does while it runs.

#[cfg(test)]
#[path = "support/harness.rs"]
mod harness;

use harness::check;

#[test]
fn objects_are_created_read_changed_and_deleted() {
    check(include_str!("fixtures/verbs.txt"));
}

#[test]
fn configurations_are_applied() {
    check(include_str!("fixtures/apply.txt"));
}

#[test]
fn clients_that_speak_protobuf_are_answered_in_it() {
    check(include_str!("fixtures/protobuf.txt"));
}

#[test]
fn kinds_that_nothing_acts_on_are_kept() {
    check(include_str!("fixtures/kept.txt"));
}

#[test]
fn custom_resources_are_served_as_soon_as_they_are_defined() {
    check(include_str!("fixtures/crd.txt"));
}

#[test]
fn definitions_share_out_names_and_go_with_their_objects() {
    check(include_str!("fixtures/definitions.txt"));
}

#[test]
fn lists_are_paged_and_selected() {
    check(include_str!("fixtures/lists.txt"));
}

#[test]
fn deletion_waits_for_grace_and_finalizers() {
    check(include_str!("fixtures/deletion.txt"));
}

#[test]
fn pods_are_admitted_bound_and_evicted() {
    check(include_str!("fixtures/pods.txt"));
}

#[test]
fn limit_ranges_give_and_bound() {
    check(include_str!("fixtures/limit_ranges.txt"));
}

#[test]
fn running_pods_are_looked_into_and_resized() {
    check(include_str!("fixtures/pod_parts.txt"));
}

#[test]
fn quotas_are_charged_with_each_write() {
    check(include_str!("fixtures/quotas.txt"));
}

#[test]
fn namespaces_say_how_secure_pods_must_be() {
    check(include_str!("fixtures/pod_security.txt"));
}

#[test]
fn classes_say_what_pods_and_claims_get() {
    check(include_str!("fixtures/classes.txt"));
}

#[test]
fn users_may_what_their_roles_say() {
    check(include_str!("fixtures/rbac.txt"));
}

#[test]
fn nodes_may_what_their_pods_need() {
    check(include_str!("fixtures/nodes.txt"));
}

#[test]
fn services_own_addresses_and_ports() {
    check(include_str!("fixtures/services.txt"));
}

#[test]
fn writers_of_a_past_term_are_fenced() {
    check(include_str!("fixtures/fencing.txt"));
}

#[test]
fn policies_refuse_warn_and_change() {
    check(include_str!("fixtures/policies.txt"));
}

#[test]
fn policies_see_every_kind_of_write() {
    check(include_str!("fixtures/policy_verbs.txt"));
}

#[test]
fn what_every_cluster_has_is_kept() {
    check(include_str!("fixtures/upkeep.txt"));
}

#[test]
fn bad_input_is_refused() {
    check(include_str!("fixtures/refusals.txt"));
}

#[test]
fn clients_discover_what_is_served() {
    check(include_str!("fixtures/discovery.txt"));
}

#[test]
fn what_a_cluster_starts_with_is_valid() {
    use rand::SeedableRng;
    let key = apiserver_core::authn::jwt::SigningKey::from_seed(&[1; 32]).expect("key");
    let mut config = apiserver_core::Config::new(vec![key]);
    config.advertise = vec![("10.89.0.1".parse().expect("address"), 6443)];
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let snapshot = store_core::Snapshot::default();
    let mut ids = apiserver_core::Ids::new(&mut rng);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut txns = apiserver_core::genesis::plan(&snapshot, &config, now, &mut ids);
    let derived = apiserver_core::Derived::build(&snapshot);
    let kept = apiserver_core::genesis::Kept { config: &config, derived: &derived, authority: "PEM" };
    txns.extend(apiserver_core::genesis::keep(&snapshot, &kept, now, &mut ids));
    for op in txns.iter().flat_map(|txn| &txn.ops) {
        let store_core::Op::Put { key, value, .. } = op else { continue };
        if key.starts_with(b"/claims/") {
            continue;
        }
        let object: serde_json::Value = serde_json::from_slice(&value.bytes).expect("JSON");
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let catalogue = api::catalogue::Catalogue::builtin();
        let resource = catalogue.by_type(&text("apiVersion"), &text("kind")).expect("a resource");
        assert_eq!(api::validation::create(resource, &object), [], "{object}");
    }
}

#[test]
fn webhooks_change_and_refuse_what_is_written() {
    check(include_str!("fixtures/webhooks.txt"));
}

#[test]
fn webhooks_are_asked_about_every_kind_of_write() {
    check(include_str!("fixtures/webhook_verbs.txt"));
}

#[test]
fn webhooks_convert_between_versions() {
    check(include_str!("fixtures/conversion.txt"));
}

#[test]
fn requests_are_passed_on_to_where_they_may_go() {
    check(include_str!("fixtures/proxies.txt"));
}

#[test]
fn measures_are_planned_for_what_runs() {
    check(include_str!("fixtures/metrics.txt"));
}
