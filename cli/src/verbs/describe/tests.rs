use client::core::object::{ObjectKey, Target};
use serde_json::json;

use super::*;
use crate::verbs::discovery::ApiResource;

fn check(group: &str, kind: &str, value: Value, around: Around, expected: &str) {
    let resource = ResourceType::new(group, "v1", kind, kind.to_lowercase(), true);
    let api = ApiResource {
        resource: resource.clone(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Vec::new(),
        preferred: true,
    };
    let target = Target { resource, key: ObjectKey::new("default", "web") };
    let now = "2026-11-21T10:00:00Z".parse().expect("a time");
    let text = describe(&Found { api, target, value }, &around, now);
    assert_eq!(tabs::align(&text, tabs::DESCRIPTION), expected);
}

#[test]
fn pod() {
    let value = json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "x": "y"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
        "spec": {"serviceAccountName": "default", "nodeName": "node-1",
            "containers": [{"name": "c", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "command": ["sleep", "1"], "resources": {"requests": {"cpu": "100m"}},
                "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"name": "v", "mountPath": "/data", "readOnly": true}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "qosClass": "Burstable",
            "startTime": "2026-11-21T09:00:00Z",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": "orlop://1", "imageID": "sha256:1", "ready": true, "restartCount": 2,
                "state": {"running": {"startedAt": "2026-11-21T09:00:01Z"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "startedAt": "2026-11-21T09:00:00Z", "finishedAt": "2026-11-21T09:00:01Z"}}}]},
    });
    let events = vec![
        json!({"type": "Normal", "reason": "Scheduled", "message": "Successfully assigned", "source": {"component": "default-scheduler"},
        "firstTimestamp": "2026-11-21T09:58:00Z", "lastTimestamp": "2026-11-21T09:59:50Z", "count": 3}),
    ];
    let around = Around { events: Some(events), ..Around::default() };
    check(
        "",
        "Pod",
        value,
        around,
        "Name:             web
Namespace:        default
Priority:         0
Service Account:  default
Node:             node-1/10.0.0.1
Start Time:       Sat, 21 Nov 2026 09:00:00 +0000
Labels:           app=web
                  x=y
Annotations:      <none>
Status:           Running
IP:               10.1.0.1
IPs:
  IP:           10.1.0.1
Controlled By:  ReplicaSet/web-1
Containers:
  c:
    Container ID:  orlop://1
    Image:         web:1
    Image ID:      sha256:1
    Port:          80/TCP
    Host Port:     0/TCP
    Command:
      sleep
      1
    State:          Running
      Started:      Sat, 21 Nov 2026 09:00:01 +0000
    Last State:     Terminated
      Reason:       Error
      Exit Code:    1
      Started:      Sat, 21 Nov 2026 09:00:00 +0000
      Finished:     Sat, 21 Nov 2026 09:00:01 +0000
    Ready:          True
    Restart Count:  2
    Requests:
      cpu:  100m
    Environment:
      A:  1
    Mounts:
      /data from v (ro)
Conditions:
  Type    Status
  Ready   True 
Volumes:
  v:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   <unset>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
Events:
  Type    Reason     Age               From               Message
  ----    ------     ----              ----               -------
  Normal  Scheduled  10s (x3 over 2m)  default-scheduler  Successfully assigned
",
    );
}

#[test]
fn anything() {
    check(
        "example.com",
        "Widget",
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "u"}, "spec": {"maxSize": 3, "parts": [{"name": "a"}, "b"]}}),
        Around { events: Some(Vec::new()), ..Around::default() },
        "Name:         w
Namespace:    
Labels:       <none>
Annotations:  <none>
API Version:  example.com/v1
Kind:         Widget
Metadata:
  UID:  u
Spec:
  Max Size:  3
  Parts:
    Name:  a
    b
Events:  <none>
",
    );
}
