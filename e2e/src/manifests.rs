//! What several tests apply.

/// The demo's server, ready when it answers, behind a service: `web`, a workload of this kind with so many replicas, where it
/// has any.
pub fn web(kind: &str, replicas: Option<u32>) -> String {
    let replicas = replicas.map(|count| format!("\n  replicas: {count}")).unwrap_or_default();
    format!(
        r#"
apiVersion: apps/v1
kind: {kind}
metadata: {{name: web}}
spec:{replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: web
          image: orlop.dev/demo:v1
          readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}
