use super::*;
use crate::catalogue::Catalogue;

fn resource(group: &str, kind: &str) -> &'static Resource {
    let catalogue = Catalogue::builtin();
    catalogue.resources().find(|resource| resource.group == group && resource.kind == kind).unwrap()
}

/// Cells of an object of a kind, joined by ` | `, an hour after midnight.
fn check(group: &str, kind: &str, object: &str, expected: &str) {
    let mut object: Value = serde_json::from_str(object).unwrap();
    object["metadata"]["name"] = "it".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let resource = resource(group, kind);
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = row(resource, &object, now);
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells.len(), columns(resource).as_array().unwrap().len(), "a cell a column");
    let shown: Vec<String> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    assert_eq!(shown.join(" | "), expected);
}

fn check_pod(status: &str, expected: &str) {
    let object = format!(
        r#"{{"metadata":{{}},"spec":{{"nodeName":"n","containers":[{{"name":"a"}},{{"name":"b"}}],
            "initContainers":[{{"name":"i"}}]}},"status":{status}}}"#
    );
    let mut value: Value = serde_json::from_str(&object).unwrap();
    value["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let row = row(resource("", "Pod"), &value, "2026-01-01T01:00:00Z".parse().unwrap());
    let shown = format!(
        "{} {} {}",
        row["cells"][1].as_str().unwrap(),
        row["cells"][2].as_str().unwrap(),
        row["cells"][3].as_str().unwrap()
    );
    assert_eq!(shown, expected);
}

#[test]
fn pods_say_what_they_do() {
    let initialized =
        r#""conditions":[{"type":"Initialized","status":"True"},{"type":"Ready","status":"True"}]"#;
    check_pod(r#"{"phase":"Pending"}"#, "0/2 Pending 0");
    check_pod(
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]}"#,
        "0/2 Init:0/1 0",
    );
    check_pod(
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","restartCount":2,"state":{"waiting":{"reason":"CrashLoopBackOff"}},
            "lastState":{"terminated":{"finishedAt":"2026-01-01T00:55:00Z"}}}]}"#,
        "0/2 Init:CrashLoopBackOff 2 (5m ago)",
    );
    let done = r#""initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]"#;
    check_pod(
        &format!(
            r#"{{"phase":"Running",{done},{initialized},"containerStatuses":[
            {{"name":"a","ready":true,"state":{{"running":{{}}}}}},{{"name":"b","ready":true,"state":{{"running":{{}}}}}}]}}"#
        ),
        "2/2 Running 0",
    );
    check_pod(
        &format!(
            r#"{{"phase":"Running",{done},{initialized},"containerStatuses":[
            {{"name":"a","ready":true,"state":{{"running":{{}}}}}},{{"name":"b","state":{{"waiting":{{"reason":"ImagePullBackOff"}}}}}}]}}"#
        ),
        "1/2 ImagePullBackOff 0",
    );
    check_pod(
        &format!(
            r#"{{"phase":"Failed",{done},{initialized},"containerStatuses":[
            {{"name":"a","state":{{"terminated":{{"exitCode":137,"reason":"OOMKilled"}}}}}}]}}"#
        ),
        "0/2 OOMKilled 0",
    );
    check_pod(r#"{"phase":"Failed","reason":"Evicted"}"#, "0/2 Evicted 0");
}

#[test]
fn a_deleted_pod_is_terminating() {
    check(
        "",
        "Pod",
        r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:30:00Z"},"spec":{"containers":[{"name":"a"}]},"status":{"phase":"Running"}}"#,
        "it | 0/1 | Terminating | 0 | 60m | <none> | <none> | <none> | <none>",
    );
}

#[test]
fn workloads() {
    let template = r#""selector":{"matchLabels":{"app":"web"}},"template":{"spec":{"containers":[{"name":"c","image":"i:1"}]}}"#;
    check(
        "apps",
        "Deployment",
        &format!(
            r#"{{"metadata":{{}},"spec":{{"replicas":3,{template}}},"status":{{"readyReplicas":2,"updatedReplicas":3}}}}"#
        ),
        "it | 2/3 | 3 | 0 | 60m | c | i:1 | app=web",
    );
    check(
        "apps",
        "DaemonSet",
        &format!(
            r#"{{"metadata":{{}},"spec":{{{template}}},"status":{{"desiredNumberScheduled":3,"numberReady":1}}}}"#
        ),
        "it | 3 | 0 | 1 | 0 | 0 | <none> | 60m | c | i:1 | app=web",
    );
}

#[test]
fn network() {
    check(
        "",
        "Service",
        r#"{"metadata":{},"spec":{"type":"NodePort","clusterIP":"10.96.0.7","selector":{"app":"web"},
            "ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}}"#,
        "it | NodePort | 10.96.0.7 | <none> | 80:30080/TCP,53/UDP | 60m | app=web",
    );
    check(
        "",
        "Endpoints",
        r#"{"metadata":{},"subsets":[{"addresses":[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}],"ports":[{"port":80},{"port":81}]}]}"#,
        "it | 10.0.0.1:80,10.0.0.1:81,10.0.0.2:80 + 1 more... | 60m",
    );
}

#[test]
fn cluster() {
    check(
        "",
        "Node",
        r#"{"metadata":{"labels":{"node-role.kubernetes.io/worker":""}},"spec":{"unschedulable":true},"status":{
            "conditions":[{"type":"Ready","status":"True"}],"nodeInfo":{"kubeletVersion":"v1"},"addresses":[{"type":"InternalIP","address":"10.89.0.11"}]}}"#,
        "it | Ready,SchedulingDisabled | worker | 60m | v1 | 10.89.0.11 | <none> | <unknown> | <unknown> | <unknown>",
    );
    check(
        "",
        "Event",
        r#"{"metadata":{},"type":"Normal","reason":"Scheduled","message":"bound","involvedObject":{"kind":"Pod","name":"web"},
            "eventTime":"2026-01-01T00:59:30Z","reportingComponent":"default-scheduler"}"#,
        "30s | Normal | Scheduled | pod/web |  | default-scheduler | bound | 30s | 1 | it",
    );
    check("", "ConfigMap", r#"{"metadata":{},"data":{"a":"1","b":"2"}}"#, "it | 2 | 60m");
}
