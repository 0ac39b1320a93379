//! Containers: what they are to be, and how they are.

use serde_json::Value;

use super::text::{Text, long_time, number, pairs, plain};
use crate::verbs::session::text_at;

/// Writes all containers of a list.
pub fn write_all(
    text: &mut Text,
    title: &str,
    containers: Option<&Value>,
    statuses: Option<&Value>,
    level: usize,
) {
    let Some(containers) = containers.and_then(Value::as_array).filter(|all| !all.is_empty()) else { return };
    text.line(level, format!("{title}:"));
    // Names within a template are set in by one more blank, what follows them is not.
    let indent = if level > 0 { " " } else { "" };
    for container in containers {
        let name = text_at(container, "/name");
        let status = statuses
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|status| text_at(status, "/name") == name);
        text.line(1, format!("{indent}{name}:"));
        basics(text, container, status, 2);
        command(text, container, 2);
        if let Some(status) = status {
            states(text, status, 2);
        }
        resources(text, container, 2);
        probes(text, container, 2);
        environment(text, container, 2);
        mounts(text, container, 2);
    }
}

fn basics(text: &mut Text, container: &Value, status: Option<&Value>, level: usize) {
    if let Some(status) = status {
        text.field(level, "Container ID", text_at(status, "/containerID"));
    }
    text.field(level, "Image", text_at(container, "/image"));
    if let Some(status) = status {
        text.field(level, "Image ID", text_at(status, "/imageID"));
    }
    let ports: Vec<&Value> = container.get("ports").and_then(Value::as_array).into_iter().flatten().collect();
    let protocol = |port: &Value| match text_at(port, "/protocol") {
        "" => "TCP".to_owned(),
        protocol => protocol.to_owned(),
    };
    let list = |name: &str| {
        let one = |port: &&Value| format!("{}/{}", number(port, &format!("/{name}")), protocol(port));
        let all: Vec<String> = ports.iter().map(one).collect();
        all.join(", ")
    };
    let with_names: Vec<String> = ports
        .iter()
        .map(|port| match text_at(port, "/name") {
            "" => format!("{}/{}", number(port, "/containerPort"), protocol(port)),
            name => format!("{}/{} ({name})", number(port, "/containerPort"), protocol(port)),
        })
        .collect();
    let (one, host) = if ports.len() > 1 { ("Ports", "Host Ports") } else { ("Port", "Host Port") };
    text.field_or_none(level, one, &with_names.join(", "));
    text.field_or_none(level, host, &list("hostPort"));
    if let profile @ [_, ..] = text_at(container, "/securityContext/seccompProfile/type").as_bytes() {
        text.field(level, "SeccompProfile", String::from_utf8_lossy(profile));
    }
}

fn command(text: &mut Text, container: &Value, level: usize) {
    for (title, name) in [("Command", "command"), ("Args", "args")] {
        let words: Vec<&Value> =
            container.get(name).and_then(Value::as_array).into_iter().flatten().collect();
        if !words.is_empty() {
            text.line(level, format!("{title}:"));
            for word in words {
                for line in plain(word).lines() {
                    text.line(level + 1, line);
                }
            }
        }
    }
}

fn states(text: &mut Text, status: &Value, level: usize) {
    state(text, "State", status.get("state"), level);
    if status.get("lastState").and_then(|state| state.get("terminated")).is_some() {
        state(text, "Last State", status.get("lastState"), level);
    }
    let ready = status.get("ready").and_then(Value::as_bool).unwrap_or(false);
    text.field(level, "Ready", if ready { "True" } else { "False" });
    text.field(level, "Restart Count", number(status, "/restartCount"));
}

fn state(text: &mut Text, title: &str, state: Option<&Value>, level: usize) {
    let state = state.unwrap_or(&Value::Null);
    let optional = |text: &mut Text, title: &str, value: &str| {
        if !value.is_empty() {
            text.field(level + 1, title, value);
        }
    };
    if let Some(running) = state.get("running") {
        text.field(level, title, "Running");
        text.field(level + 1, "Started", long_time(text_at(running, "/startedAt")));
    } else if let Some(waiting) = state.get("waiting") {
        text.field(level, title, "Waiting");
        optional(text, "Reason", text_at(waiting, "/reason"));
    } else if let Some(ended) = state.get("terminated") {
        text.field(level, title, "Terminated");
        optional(text, "Reason", text_at(ended, "/reason"));
        optional(text, "Message", text_at(ended, "/message").trim_end());
        text.field(level + 1, "Exit Code", number(ended, "/exitCode"));
        if let signal @ 1.. = number(ended, "/signal") {
            text.field(level + 1, "Signal", signal);
        }
        text.field(level + 1, "Started", long_time(text_at(ended, "/startedAt")));
        text.field(level + 1, "Finished", long_time(text_at(ended, "/finishedAt")));
    } else {
        text.field(level, title, "Waiting");
    }
}

fn resources(text: &mut Text, container: &Value, level: usize) {
    for (title, name) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts = pairs(container.pointer(name), ":\t");
        if !amounts.is_empty() {
            text.line(level, format!("{title}:"));
            amounts.iter().for_each(|amount| text.line(level + 1, amount));
        }
    }
}

fn probes(text: &mut Text, container: &Value, level: usize) {
    for (title, name) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if let Some(probe) = container.get(name) {
            text.field(level, title, probe_text(probe));
        }
    }
}

fn probe_text(probe: &Value) -> String {
    let or = |pointer: &str, default: i64| probe.pointer(pointer).and_then(Value::as_i64).unwrap_or(default);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        or("/initialDelaySeconds", 0),
        or("/timeoutSeconds", 1),
        or("/periodSeconds", 10),
        or("/successThreshold", 1),
        or("/failureThreshold", 3)
    );
    let action = if let Some(exec) = probe.get("exec") {
        let words: Vec<String> =
            exec.get("command").and_then(Value::as_array).into_iter().flatten().map(plain).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(get) = probe.get("httpGet") {
        let scheme = match text_at(get, "/scheme") {
            "" => "http".to_owned(),
            scheme => scheme.to_lowercase(),
        };
        let port = get.get("port").map(plain).unwrap_or_default();
        format!("http-get {scheme}://{}:{port}{}", text_at(get, "/host"), text_at(get, "/path"))
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!(
            "tcp-socket {}:{}",
            text_at(socket, "/host"),
            socket.get("port").map(plain).unwrap_or_default()
        )
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", number(grpc, "/port"), text_at(grpc, "/service"))
    } else {
        "unknown".to_owned()
    };
    format!("{action} {attributes}")
}

fn environment(text: &mut Text, container: &Value, level: usize) {
    let sources: Vec<&Value> =
        container.get("envFrom").and_then(Value::as_array).into_iter().flatten().collect();
    if !sources.is_empty() {
        text.line(level, "Environment Variables from:");
        for source in sources {
            let (kind, reference) = match source.get("configMapRef") {
                Some(reference) => ("ConfigMap", reference),
                None => ("Secret", source.get("secretRef").unwrap_or(&Value::Null)),
            };
            let optional = reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
            let prefix = match text_at(source, "/prefix") {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            text.line(
                level + 1,
                format!("{}\t{kind}{prefix}\tOptional: {optional}", text_at(reference, "/name")),
            );
        }
    }
    let variables: Vec<&Value> =
        container.get("env").and_then(Value::as_array).into_iter().flatten().collect();
    if variables.is_empty() {
        return text.field(level, "Environment", "<none>");
    }
    text.line(level, "Environment:");
    for variable in variables {
        text.line(level + 1, format!("{}:\t{}", text_at(variable, "/name"), variable_text(variable)));
    }
}

fn variable_text(variable: &Value) -> String {
    let Some(from) = variable.get("valueFrom") else {
        return text_at(variable, "/value").replace('\n', "\n\t");
    };
    let optional = |reference: &Value| reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
    if let Some(field) = from.get("fieldRef") {
        let version = match text_at(field, "/apiVersion") {
            "" => "v1",
            version => version,
        };
        format!(" ({version}:{})", text_at(field, "/fieldPath"))
    } else if let Some(resource) = from.get("resourceFieldRef") {
        format!(" ({})", text_at(resource, "/resource"))
    } else if let Some(key) = from.get("secretKeyRef") {
        format!(
            "<set to the key '{}' in secret '{}'>\tOptional: {}",
            text_at(key, "/key"),
            text_at(key, "/name"),
            optional(key)
        )
    } else if let Some(key) = from.get("configMapKeyRef") {
        format!(
            "<set to the key '{}' of config map '{}'>\tOptional: {}",
            text_at(key, "/key"),
            text_at(key, "/name"),
            optional(key)
        )
    } else {
        String::new()
    }
}

fn mounts(text: &mut Text, container: &Value, level: usize) {
    let mut mounts: Vec<&Value> =
        container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten().collect();
    if mounts.is_empty() {
        return text.field(level, "Mounts", "<none>");
    }
    mounts.sort_by_key(|mount| text_at(mount, "/mountPath"));
    text.line(level, "Mounts:");
    for mount in mounts {
        let read_only = mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false);
        let mut flags = vec![if read_only { "ro".to_owned() } else { "rw".to_owned() }];
        if let path @ [_, ..] = text_at(mount, "/subPath").as_bytes() {
            flags.push(format!("path=\"{}\"", String::from_utf8_lossy(path)));
        }
        text.line(
            level + 1,
            format!(
                "{} from {} ({})",
                text_at(mount, "/mountPath"),
                text_at(mount, "/name"),
                flags.join(",")
            ),
        );
    }
}
