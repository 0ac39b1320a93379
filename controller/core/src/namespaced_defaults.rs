//! What every namespace has: the `default` ServiceAccount and the cluster's CA certificate.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::json;

use crate::merge::diff_field;
use crate::object::{is_terminating, name};
use crate::plan::{Plan, Report, create, merge_exact};

/// The name of the ConfigMap with the CA certificate.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// The name of the ServiceAccount of pods that ask for none.
pub const DEFAULT_ACCOUNT: &str = "default";

/// Plans the `default` ServiceAccount of a namespace.
pub fn plan_account(namespace: &Namespace, account: Option<&ServiceAccount>) -> (Plan, Report) {
    let mut plan = Plan::default();
    if account.is_none() && !is_terminating(namespace) {
        let document = json!({"metadata": {"name": DEFAULT_ACCOUNT, "namespace": name(namespace)}});
        plan.one(create::<ServiceAccount>(Some(name(namespace)), document).tolerant());
    }
    (plan, Report::default())
}

/// Plans the ConfigMap with the CA certificate of a namespace.
pub fn plan_root_ca(
    namespace: &Namespace,
    published: Option<&ConfigMap>,
    certificate: &str,
) -> (Plan, Report) {
    let mut plan = Plan::default();
    if is_terminating(namespace) || certificate.is_empty() {
        return (plan, Report::default());
    }
    let data = std::collections::BTreeMap::from([("ca.crt".to_owned(), certificate.to_owned())]);
    let Some(published) = published else {
        let document = json!({
            "metadata": {
                "name": ROOT_CA,
                "namespace": name(namespace),
                "annotations": {
                    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
                },
            },
            "data": data,
        });
        plan.one(create::<ConfigMap>(Some(name(namespace)), document).tolerant());
        return (plan, Report::default());
    };
    if let Some(body) = diff_field("data", &published.data, &Some(data)) {
        plan.one(merge_exact::<ConfigMap>(&published.metadata, None, body));
    }
    (plan, Report::default())
}
