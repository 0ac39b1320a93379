use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;

fn check(group: &str, plural: &str, input: Value, expected: Value) {
    let resource = Catalogue::builtin().resource(group, "v1", plural).expect(plural);
    let mut object = input;
    apply(resource, &mut object);
    assert_eq!(object, expected);
    let once = object.clone();
    apply(resource, &mut object);
    assert_eq!(object, once, "defaults are idempotent");
}

#[test]
fn pods() {
    check(
        "",
        "pods",
        json!({"spec": {"hostNetwork": true, "serviceAccount": "s", "containers": [{"name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "h", "hostPath": {"path": "/x"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}),
        json!({"spec": {"hostNetwork": true, "serviceAccount": "s", "serviceAccountName": "s",
            "enableServiceLinks": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {},
            "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}]}}),
    );
}

#[test]
fn pull_policies_follow_the_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
    ] {
        let input = json!({"spec": {"containers": [{"image": image}]}});
        let mut object = input;
        apply(Catalogue::builtin().resource("", "v1", "pods").expect("pods"), &mut object);
        assert_eq!(object["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn workloads() {
    let mut object = json!({"spec": {"template": {"spec": {"containers": []}}}});
    apply(Catalogue::builtin().resource("apps", "v1", "deployments").expect("deployments"), &mut object);
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(
        object["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(object["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert!(object["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
    check(
        "apps",
        "daemonsets",
        json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}),
        json!({"spec": {"updateStrategy": {"type": "OnDelete"}, "revisionHistoryLimit": 10}}),
    );
}

#[test]
fn services_and_others() {
    check(
        "",
        "services",
        json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
        json!({"spec": {"type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}}),
    );
    check(
        "",
        "secrets",
        json!({"data": {"a": "eA=="}, "stringData": {"a": "y"}}),
        json!({"type": "Opaque", "data": {"a": "eQ=="}}),
    );
    check(
        "",
        "namespaces",
        json!({"metadata": {"name": "n"}}),
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}}}),
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]}),
        json!({"roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount"}]}),
    );
}
