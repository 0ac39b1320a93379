//! Runs the steps of a fixture: a whole API server core on an in-memory state machine.

use std::collections::BTreeMap;

use apiserver_core::ask::{Fault, Question, Review};
use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::genesis::{self, Kept};
use apiserver_core::{
    Ask, Config, Consistency, Derived, Ids, Prepared, Progress, Rendered, Request, RequestInfo, Response,
    User, World, prepare_from,
};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use serde_json::{Value, json};
use store_core::Snapshot;
use store_core::state::StateMachine;

struct Cluster {
    machine: StateMachine,
    history: BTreeMap<u64, Snapshot>,
    derived: Derived,
    config: Config,
    rng: rand::rngs::StdRng,
    now: Timestamp,
    user: User,
    headers: http::HeaderMap,
    names: BTreeMap<String, String>,
    answer: (u16, Value),
    delayed: Option<Request>,
    /// What webhooks answer, by their addresses.
    webhooks: BTreeMap<String, Value>,
    /// What webhooks were asked since the last request began.
    asked: Vec<Value>,
}

/// Runs a fixture on a fresh cluster.
pub fn check(fixture: &str) {
    let mut cluster = Cluster::new();
    for (number, line) in fixture.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = cluster.substitute(line);
        if let Err(why) = cluster.step(&line) {
            panic!("line {}: {line}\n{why}\nanswer: {} {:#}", number + 1, cluster.answer.0, cluster.answer.1);
        }
    }
}

// === impl Cluster ===

impl Cluster {
    fn new() -> Cluster {
        let key = SigningKey::from_seed(&[7; 32]).expect("key");
        let mut config = Config::new(vec![key]);
        config.advertise = vec![("10.89.0.1".parse().expect("address"), 6443)];
        let mut cluster = Cluster {
            machine: StateMachine::new(),
            history: BTreeMap::new(),
            derived: Derived::default(),
            config,
            rng: rand::rngs::StdRng::seed_from_u64(1),
            now: "2026-01-01T00:00:00Z".parse().expect("time"),
            user: User::from_certificate("admin", &["system:masters".into()]),
            headers: http::HeaderMap::new(),
            names: BTreeMap::new(),
            answer: (0, Value::Null),
            delayed: None,
            webhooks: BTreeMap::new(),
            asked: Vec::new(),
        };
        cluster.genesis();
        for namespace in ["default", "kube-system"] {
            let path = format!("POST /api/v1/namespaces/{namespace}/serviceaccounts");
            cluster.request(&format!("{path} {{\"metadata\":{{\"name\":\"default\"}}}}")).expect("account");
        }
        cluster
    }

    fn genesis(&mut self) {
        for round in 0..2 {
            let mut ids = Ids::new(&mut self.rng);
            let mut txns = genesis::plan(self.machine.snapshot(), &self.config, self.now, &mut ids);
            let servers = &self.config.advertise;
            txns.extend(genesis::endpoints(self.machine.snapshot(), servers, self.now, &mut ids));
            assert!(round == 0 || txns.is_empty(), "genesis is not idempotent: {txns:?}");
            for txn in txns {
                self.commit(&txn);
            }
        }
        self.keep();
    }

    /// What the leading server does while it runs.
    fn keep(&mut self) {
        for round in 0..2 {
            let kept = Kept { config: &self.config, derived: &self.derived, authority: "PEM" };
            let mut ids = Ids::new(&mut self.rng);
            let txns = genesis::keep(self.machine.snapshot(), &kept, self.now, &mut ids);
            assert!(round == 0 || txns.is_empty(), "keeping is not idempotent: {txns:?}");
            for txn in txns {
                self.commit(&txn);
            }
        }
    }

    fn commit(&mut self, txn: &store_core::Txn) -> store_core::Outcome {
        let (outcome, events) = self.machine.commit(txn);
        self.derived.apply(events.iter().map(|event| &**event));
        self.history.insert(self.machine.snapshot().revision(), self.machine.snapshot().clone());
        outcome
    }

    fn substitute(&self, line: &str) -> String {
        self.names
            .iter()
            .fold(line.to_owned(), |line, (name, value)| line.replace(&format!("${{{name}}}"), value))
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "as" => self.become_user(rest),
            "now" => {
                let seconds = rest.trim_start_matches('+').parse().map_err(|_| "bad seconds")?;
                self.now =
                    self.now.saturating_add(SignedDuration::from_secs(seconds)).map_err(|e| e.to_string())?;
                Ok(())
            }
            "accept" => {
                self.headers.insert("accept", rest.parse().map_err(|_| "bad header")?);
                Ok(())
            }
            "header" => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                let name: http::HeaderName = name.parse().map_err(|_| "bad header name")?;
                match value {
                    "" => drop(self.headers.remove(&name)),
                    value => drop(self.headers.insert(name, value.parse().map_err(|_| "bad header")?)),
                }
                Ok(())
            }
            "->" => self.expect_status(rest),
            "keep" => {
                self.keep();
                Ok(())
            }
            "race" => {
                self.delayed = self.parse(rest).ok();
                Ok(())
            }
            "webhook" => {
                let (url, answer) = rest.split_once(' ').ok_or("webhook URL ANSWER")?;
                let answer = serde_json::from_str(answer).map_err(|error| error.to_string())?;
                self.webhooks.insert(url.to_owned(), answer);
                Ok(())
            }
            "asked" => {
                let expected: Vec<&str> = rest.split_whitespace().collect();
                let found: Vec<&str> = self.asked.iter().filter_map(|asked| asked["to"].as_str()).collect();
                self.answer.1 = json!({ "asked": self.asked });
                match found == expected {
                    true => Ok(()),
                    false => Err(format!("expected {expected:?} to be asked, found {found:?}")),
                }
            }
            "let" => {
                let (name, path) = rest.split_once(" = ").ok_or("let NAME = /path")?;
                let value = self.found(path).ok_or("nothing there")?;
                self.names.insert(name.into(), value);
                Ok(())
            }
            path if path.starts_with('/') || path.starts_with('!') => self.expect_field(line),
            _ => self.request(line),
        }
    }

    fn become_user(&mut self, rest: &str) -> Result<(), String> {
        if let Some(token) = rest.strip_prefix("token ") {
            return match apiserver_core::authn::authenticate(
                self.machine.snapshot(),
                &self.config,
                token,
                self.now,
            ) {
                Ok(user) => {
                    self.user = user;
                    Ok(())
                }
                Err(error) => {
                    self.answer = (401, json!({"message": error.to_string()}));
                    self.user = User::anonymous();
                    Ok(())
                }
            };
        }
        let mut words = rest.split(' ').map(str::to_owned);
        let name = words.next().unwrap_or_default();
        self.user = match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((namespace, name)) => User::service_account(namespace, name),
            None => User::authenticated(&name, &words.collect::<Vec<_>>()),
        };
        Ok(())
    }

    fn parse(&self, line: &str) -> Result<Request, Box<Response>> {
        let mut parts = line.splitn(3, ' ');
        let method: http::Method = parts.next().unwrap_or_default().parse().expect("a method");
        let target = parts.next().expect("a path");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut body = parts.next().unwrap_or_default();
        let mut headers = self.headers.clone();
        if let Some((media, rest)) = body.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            headers.insert("content-type", media.parse().expect("a media type"));
            body = rest.trim_start();
        }
        let body = body.replace("\\n", "\n");
        let info = RequestInfo::parse(&method, path, query)?;
        Ok(Request { info, headers, body: body.into() })
    }

    fn request(&mut self, line: &str) -> Result<(), String> {
        let request = match self.parse(line) {
            Ok(request) => request,
            Err(refused) => {
                self.answer = shown(&refused);
                return Ok(());
            }
        };
        self.asked.clear();
        let delayed = self.delayed.take().map(|delayed| {
            let planned = self.plan(&delayed, &Progress::default());
            (delayed, planned)
        });
        let planned = self.plan(&request, &Progress::default());
        self.answer = self.carry_out(&request, planned);
        if let Some((delayed, planned)) = delayed {
            let second = self.carry_out(&delayed, planned);
            let first = std::mem::replace(&mut self.answer, second);
            self.answer.1["first"] = first.1;
        }
        Ok(())
    }

    fn plan(&mut self, request: &Request, progress: &Progress) -> Prepared {
        let newest = self.machine.snapshot().clone();
        let snapshot = match request.consistency() {
            Consistency::Exact(revision) => self.history.get(&revision).cloned().unwrap_or(newest),
            _ => newest,
        };
        let world = World { snapshot: &snapshot, derived: &self.derived, config: &self.config };
        let mut rng = self.rng.clone();
        let prepared = prepare_from(&world, request, &self.user, self.now, &mut Ids::new(&mut rng), progress);
        // Who plans again with answers draws the same ids.
        if !matches!(prepared, Prepared::Ask(_)) {
            self.rng = rng;
        }
        prepared
    }

    /// Answers as the fixture has said.
    fn ask(&mut self, ask: &Ask, progress: &mut Progress) {
        for question in &ask.questions {
            let body: Value = serde_json::from_slice(&question.body("u")).expect("a review");
            let url = question.url.split('?').next().unwrap_or_default().to_owned();
            let answer = match self.webhooks.get(&url) {
                Some(Value::String(why)) => Err(Fault::Call(why.clone())),
                Some(answer) => question.read("u", answered(question, answer, &body).to_string().as_bytes()),
                None => Err(Fault::Call("nobody is there".to_owned())),
            };
            progress.answers.put(question, answer);
            self.asked.push(json!({"to": url, "body": body, "timeout": question.timeout.as_secs(),
                "route": format!("{:?}", question.route)}));
        }
    }

    fn carry_out(&mut self, request: &Request, mut planned: Prepared) -> (u16, Value) {
        let mut progress = Progress::default();
        for _ in 0..32 {
            match planned {
                Prepared::Respond(response) => return shown(&response),
                Prepared::Commit(commit) => {
                    let outcome = self.commit(&commit.txn);
                    match commit.reply.render(&outcome) {
                        Rendered::Respond(response) => return shown(&response),
                        Rendered::Retry => planned = self.plan(request, &progress),
                    }
                }
                Prepared::Ask(ask) => {
                    self.ask(&ask, &mut progress);
                    planned = self.plan(request, &progress);
                }
                Prepared::Part(_) => panic!("no fixture has a collection of that size"),
                Prepared::Watch(plan) => {
                    let lines: Vec<Value> = plan.initial.iter().map(|line| event(line)).collect();
                    return (
                        200,
                        json!({"after": plan.after.to_string(), "initial": lines, "count": lines.len()}),
                    );
                }
                Prepared::Connect(plan) => {
                    return (200, json!({"node": plan.node, "stream": format!("{:?}", plan.stream)}));
                }
                Prepared::Measure(plan) => {
                    let nodes: Vec<String> = plan.nodes().into_iter().map(str::to_owned).collect();
                    let (status, mut answer) = shown(&plan.render(&BTreeMap::new()));
                    answer["asked"] = json!(nodes);
                    return (status, answer);
                }
            }
        }
        panic!("the request never settles");
    }

    fn found(&self, path: &str) -> Option<String> {
        let (path, count) = match path.strip_suffix("/#") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let value = self.answer.1.pointer(path)?;
        Some(match value {
            Value::Array(items) if count => items.len().to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    fn expect_status(&self, rest: &str) -> Result<(), String> {
        let (code, part) = rest.split_once(' ').unwrap_or((rest, ""));
        if code != self.answer.0.to_string() {
            return Err(format!("expected {code}, got {}", self.answer.0));
        }
        let message = self.answer.1["message"].as_str().unwrap_or_default();
        match message.contains(part) {
            true => Ok(()),
            false => Err(format!("expected the message to contain {part:?}")),
        }
    }

    fn expect_field(&self, line: &str) -> Result<(), String> {
        if let Some(path) = line.strip_prefix('!') {
            return match self.found(path) {
                None => Ok(()),
                Some(found) => Err(format!("expected nothing, found {found}")),
            };
        }
        let mut parts = line.splitn(3, ' ');
        let (path, how, expected) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let found = self.found(path.unwrap_or_default());
        let fits = match (how, &found) {
            (Some("="), Some(found)) => found == expected,
            (Some("~"), Some(found)) => found.contains(expected),
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("found {found:?}")) }
    }
}

/// The review that a webhook answers with. `"convert"` is one that knows two versions: what is `host` and `port` in one is
/// `hostPort` in the other.
fn answered(question: &Question, answer: &Value, body: &Value) -> Value {
    let (api_version, kind) = match question.review {
        Review::Admission => ("admission.k8s.io/v1", "AdmissionReview"),
        Review::Conversion => ("apiextensions.k8s.io/v1", "ConversionReview"),
    };
    let mut response = answer.clone();
    response["uid"] = "u".into();
    if let Some(patch) = answer["patch"].as_array() {
        let patch = Value::Array(patch.clone()).to_string();
        response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
        response["patchType"] = "JSONPatch".into();
    }
    if answer["convert"] == true {
        let request = &body["request"];
        let objects = request["objects"].as_array().expect("objects");
        let converted: Vec<Value> =
            objects.iter().map(|object| converted(object, &request["desiredAPIVersion"])).collect();
        response["convertedObjects"] = converted.into();
        response["result"] = json!({"status": "Success"});
    }
    json!({"kind": kind, "apiVersion": api_version, "response": response})
}

fn converted(object: &Value, wanted: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = wanted.clone();
    let spec = object["spec"].clone();
    object["spec"] = match wanted.as_str().is_some_and(|wanted| wanted.ends_with("/v1")) {
        true => {
            json!({"hostPort": format!("{}:{}", spec["host"].as_str().unwrap_or_default(), spec["port"].as_str().unwrap_or_default())})
        }
        false => {
            let (host, port) =
                spec["hostPort"].as_str().and_then(|it| it.split_once(':')).unwrap_or_default();
            json!({"host": host, "port": port})
        }
    };
    object
}

/// A frame of a watch, as JSON.
fn event(frame: &[u8]) -> Value {
    serde_json::from_slice(frame).unwrap_or_else(|_| {
        // Length, kind of event, and the document behind four tags and lengths of their own.
        let at = frame.windows(4).position(|window| window == api::protobuf::MAGIC).expect("a document");
        let length = u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        assert_eq!(length as usize, frame.len() - 4);
        let kind = String::from_utf8_lossy(&frame[6..6 + usize::from(frame[5])]).into_owned();
        let document = api::protobuf::decode_object(&frame[at..]).expect("a document");
        json!({"type": kind, "object": document.value})
    })
}

fn shown(response: &Response) -> (u16, Value) {
    let bytes = response.body.to_bytes();
    let protobuf = api::protobuf::decode_object(&bytes).map(|document| {
        let mut value = document.value;
        value["encoding"] = "protobuf".into();
        value
    });
    let mut value = protobuf
        .or_else(|_| serde_json::from_slice(&bytes))
        .unwrap_or_else(|_| json!({"text": String::from_utf8_lossy(&bytes)}));
    let warnings: Vec<String> = response
        .headers
        .iter()
        .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    if !warnings.is_empty() {
        value["warnings"] = json!(warnings);
    }
    (response.status.as_u16(), value)
}
