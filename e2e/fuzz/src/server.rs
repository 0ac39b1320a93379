//! An API server core with a few objects, as a value: each input gets its own.

use std::sync::OnceLock;

use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::{
    Config, Derived, Ids, Prepared, Rendered, Request, RequestInfo, User, World, genesis, prepare,
};
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use store_core::Txn;
use store_core::state::StateMachine;

/// Seed of names and uids: the same input does the same.
const SEED: u64 = 1;
/// A request whose transaction conflicts so often conflicts with itself.
const ATTEMPTS: usize = 8;

/// The objects that every server has: path of the collection, and the object.
pub const OBJECTS: &[(&str, &str)] = &[
    (
        "/apis/apps/v1/namespaces/default/deployments",
        r#"{"metadata":{"name":"o","labels":{"a":"b"}},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},
        "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i",
        "ports":[{"containerPort":80,"name":"http"}],"env":[{"name":"X","value":"y"}]}]}}}}"#,
    ),
    (
        "/api/v1/namespaces/default/services",
        r#"{"metadata":{"name":"o"},"spec":{"selector":{"a":"b"},"ports":[{"port":80,"name":"http"},{"port":81,"name":"more"}]}}"#,
    ),
    (
        "/api/v1/namespaces/default/configmaps",
        r#"{"metadata":{"name":"o","annotations":{"x":"y"},"finalizers":["a/b"]},"data":{"k":"v"}}"#,
    ),
    (
        "/api/v1/namespaces/default/pods",
        r#"{"metadata":{"name":"o"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
    ),
];

/// An API server core.
#[derive(Clone)]
pub struct Server {
    machine: StateMachine,
    derived: Derived,
    rng: StdRng,
    now: Timestamp,
}

/// What was answered.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body: JSON, or null.
    pub body: Value,
}

// === impl Server ===

impl Server {
    /// A server with [`OBJECTS`].
    pub fn new() -> Server {
        static FRESH: OnceLock<Server> = OnceLock::new();
        FRESH.get_or_init(Server::found).clone()
    }

    fn found() -> Server {
        let mut server = Server {
            machine: StateMachine::new(),
            derived: Derived::default(),
            rng: StdRng::seed_from_u64(SEED),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
        };
        let mut ids = Ids::new(&mut server.rng);
        for txn in genesis::plan(server.machine.snapshot(), config(), server.now, &mut ids) {
            server.commit(&txn);
        }
        let account = json!({"metadata": {"name": "default"}}).to_string();
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        assert_eq!(server.ask("POST", accounts, "application/json", account.as_bytes()).status, 201);
        for (path, object) in OBJECTS {
            let answer = server.ask("POST", path, "application/json", object.as_bytes());
            assert_eq!(answer.status, 201, "{path}: {}", answer.body);
        }
        server
    }

    fn commit(&mut self, txn: &Txn) -> store_core::Outcome {
        let (outcome, events) = self.machine.commit(txn);
        self.derived.apply(events.iter().map(|event| &**event));
        outcome
    }

    /// Asks as an administrator. `target` is a path, with a query or without.
    pub fn ask(&mut self, method: &str, target: &str, media_type: &str, body: &[u8]) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().expect("a method");
        let info = match RequestInfo::parse(&method, path, query) {
            Ok(info) => info,
            Err(refused) => return answer(&refused),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", media_type.parse().expect("a media type"));
        let request = Request { info, headers, body: body.to_vec().into() };
        let user = User::authenticated("admin", &["system:masters".into()]);
        for _ in 0..ATTEMPTS {
            let snapshot = self.machine.snapshot().clone();
            let world = World { snapshot: &snapshot, derived: &self.derived, config: config() };
            match prepare(&world, &request, &user, self.now, &mut Ids::new(&mut self.rng)) {
                Prepared::Respond(response) => return answer(&response),
                Prepared::Commit(commit) => {
                    let outcome = self.commit(&commit.txn);
                    if let Rendered::Respond(response) = commit.reply.render(&outcome) {
                        return answer(&response);
                    }
                }
                // Watches, streams and the like: nothing is written.
                _ => return Answer { status: 200, body: Value::Null },
            }
        }
        panic!("{method} {target} conflicts with itself");
    }
}

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config::new(vec![SigningKey::from_seed(&[7; 32]).expect("a key")]))
}

fn answer(response: &apiserver_core::Response) -> Answer {
    let body = serde_json::from_slice(&response.body.to_bytes()).unwrap_or(Value::Null);
    Answer { status: response.status.as_u16(), body }
}
