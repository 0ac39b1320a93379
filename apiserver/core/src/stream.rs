//! Plans streams of pods: finds the node, checks every parameter before anything is opened.

use api::field::FieldError;
use api::status::Status;
use http::StatusCode;
use serde_json::Value;

use crate::admission::Passing;
use crate::admission::matching::Operation;
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::connect::{ConnectPlan, Logs, Stream, Streams};
use crate::failure::{self, Refused};
use crate::object::{items, meta};
use crate::prepare::Planned;
use crate::request::{Request, Verb};
use crate::response::{Prepared, Response};

pub(crate) mod options;

/// Logs, exec, attach and port-forward.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    may_connect(call)?;
    let Some(request) = opened(call)? else { return follow(call) };
    follow(&Call { request: &request, ..*call })
}

/// Puts the opening of a stream before policies and webhooks; the request as they want it, if they want another.
fn opened(call: &Call<'_>) -> Planned<Option<Request>> {
    if call.subresource() == "log" {
        return Ok(None);
    }
    let asked = options::of_request(call);
    let changed = connecting(call, asked.clone())?;
    Ok((changed != asked).then(|| options::into_request(call, &changed)))
}

/// Puts what a connection is opened with before policies and webhooks; what they make of it. Nobody can be warned: a stream has
/// no place for it.
pub(crate) fn connecting(call: &Call<'_>, mut options: Value) -> Planned<Value> {
    let name = call.name();
    let passing = Passing { operation: Operation::Connect, name, old: &Value::Null, expected: None };
    passing.pass(call, &mut options)?;
    Ok(options)
}

fn follow(call: &Call<'_>) -> Planned {
    let (_, pod) = call.stored()?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let stream = match call.subresource() {
        "log" => {
            let logs = logs(call, &pod)?;
            // A pod without a node has written nothing yet.
            if node.is_empty() {
                return Ok(Prepared::Respond(Response::text(StatusCode::OK, "")));
            }
            Stream::Logs(logs)
        }
        "exec" => {
            running(&pod, "exec into")?;
            Stream::Exec {
                container: container(call, &pod)?,
                command: command(call)?,
                streams: streams(call)?,
            }
        }
        "attach" => {
            running(&pod, "attach to")?;
            Stream::Attach { container: container(call, &pod)?, streams: streams(call)? }
        }
        _ => Stream::PortForward { ports: ports(call)? },
    };
    if node.is_empty() {
        return Err(
            failure::bad_request(&format!("pod {} does not have a host assigned", call.name())).into()
        );
    }
    Ok(connect(call, node, meta(&pod, "uid"), stream))
}

/// WebSockets are asked for by GET. Who may only read must not run a command by that: what is not read is created
/// (KEP-4006, from Kubernetes 1.35).
fn may_connect(call: &Call<'_>) -> Result<(), Refused> {
    let info = &call.request.info;
    if call.subresource() == "log" || info.verb == Verb::Create {
        return Ok(());
    }
    authz::check(&call.world, call.user, &Attributes { verb: "create", ..Attributes::of(info, "") })
}

pub(crate) fn connect(call: &Call<'_>, node: &str, uid: &str, stream: Stream) -> Prepared {
    Prepared::Connect(Box::new(ConnectPlan {
        node: node.to_owned(),
        namespace: call.namespace().to_owned(),
        name: call.name().to_owned(),
        uid: uid.to_owned(),
        stream,
    }))
}

fn running(pod: &Value, what: &str) -> Result<(), Refused> {
    match pod["status"]["phase"].as_str() {
        Some(phase @ ("Succeeded" | "Failed")) => Err(failure::bad_request(&format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        ))),
        _ => Ok(()),
    }
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    items(&pod["spec"][field]).iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
}

/// The container that is named, or the only one.
fn container(call: &Call<'_>, pod: &Value) -> Result<String, Refused> {
    let (main, init) = (names(pod, "containers"), names(pod, "initContainers"));
    let ephemeral = names(pod, "ephemeralContainers");
    let wanted = call.request.info.param("container").unwrap_or_default();
    if wanted.is_empty() {
        if let [only] = main.as_slice() {
            return Ok(only.clone());
        }
        let mut message = format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            call.name(),
            main.join(" ")
        );
        if !init.is_empty() {
            message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        return Err(failure::bad_request(&message));
    }
    match main.iter().chain(&init).chain(&ephemeral).any(|name| name == wanted) {
        true => Ok(wanted.to_owned()),
        false => {
            Err(failure::bad_request(&format!("container {wanted} is not valid for pod {}", call.name())))
        }
    }
}

fn command(call: &Call<'_>) -> Result<Vec<String>, Refused> {
    let query = &call.request.info.query;
    let command: Vec<String> =
        query.iter().filter(|(key, _)| key == "command").map(|(_, v)| v.clone()).collect();
    match command.is_empty() {
        true => Err(failure::bad_request("you must specify at least one command for the container")),
        false => Ok(command),
    }
}

/// Output streams are carried unless the query says no; input only when it says yes.
fn streams(call: &Call<'_>) -> Result<Streams, Refused> {
    let info = &call.request.info;
    let unless = |name: &str| info.param(name).is_none() || info.flag(name);
    let tty = info.flag("tty");
    let streams = Streams {
        stdin: info.flag("stdin"),
        stdout: unless("stdout"),
        stderr: unless("stderr") && !tty,
        tty,
    };
    match streams.stdin || streams.stdout || streams.stderr {
        true => Ok(streams),
        false => Err(failure::bad_request("you must specify at least one of stdin, stdout, stderr")),
    }
}

fn ports(call: &Call<'_>) -> Result<Vec<u16>, Refused> {
    let query = call.request.info.query.iter().filter(|(key, _)| key == "ports");
    query
        .flat_map(|(_, value)| value.split(','))
        .map(|port| match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(failure::bad_request(&format!("unable to parse {port:?} as a port"))),
        })
        .collect()
}

fn logs(call: &Call<'_>, pod: &Value) -> Result<Logs, Refused> {
    let info = &call.request.info;
    let mut errors = Vec::new();
    let mut number = |name: &str, least: i64| {
        let text = info.param(name).filter(|text| !text.is_empty())?;
        match text.parse::<i64>() {
            Ok(value) if value >= least => Some(value),
            Ok(value) => {
                let why = format!("must be greater than or equal to {least}");
                errors.push(FieldError::invalid(name, value, why));
                None
            }
            Err(_) => {
                errors.push(FieldError::invalid(name, text, "must be an integer"));
                None
            }
        }
    };
    let (tail_lines, limit_bytes) = (number("tailLines", 0), number("limitBytes", 1));
    let since_seconds = number("sinceSeconds", 1);
    let since_time = info.param("sinceTime").filter(|time| !time.is_empty()).map(str::to_owned);
    if since_time.as_deref().is_some_and(|time| api::time::parse(time).is_err()) {
        errors.push(FieldError::invalid(
            "sinceTime",
            since_time.clone().unwrap_or_default(),
            "must be an RFC 3339 time",
        ));
    }
    if since_time.is_some() && since_seconds.is_some() {
        errors
            .push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", call.name(), &errors).into());
    }
    Ok(Logs {
        container: container(call, pod)?,
        follow: info.flag("follow"),
        previous: info.flag("previous"),
        since_seconds,
        since_time,
        tail_lines,
        timestamps: info.flag("timestamps"),
        limit_bytes,
    })
}
