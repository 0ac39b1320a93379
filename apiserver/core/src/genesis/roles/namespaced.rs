//! Roles and bindings that live in a namespace.

use serde_json::{Value, json};

use super::{binding, kube_proxy, metadata};

/// Each with its kind.
pub(in crate::genesis) fn all() -> Vec<(&'static str, Value)> {
    const READER: &str = "extension-apiserver-authentication-reader";
    let mut observed = binding("system:orlop:proxy-observed", "system:orlop:proxy-observed", kube_proxy());
    observed["metadata"]["namespace"] = "kube-node-lease".into();
    let mut reader = json!({"metadata": metadata(READER, json!({})), "rules": [
        {"apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["extension-apiserver-authentication"], "verbs": ["get", "list", "watch"]}]});
    reader["metadata"]["namespace"] = "kube-system".into();
    let user = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    let components = json!([user("system:kube-controller-manager"), user("system:kube-scheduler")]);
    let mut readers = binding("system::extension-apiserver-authentication-reader", READER, components);
    readers["metadata"]["namespace"] = "kube-system".into();
    readers["roleRef"]["kind"] = "Role".into();
    vec![("RoleBinding", observed), ("Role", reader), ("RoleBinding", readers)]
}
