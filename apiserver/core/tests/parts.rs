//! The deletion of a large collection goes part by part, and takes what was there when it began.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::{
    Config, Deleted, DeletionPart, DeletionPlace, Derived, Ids, Prepared, Progress, Request, RequestInfo,
    Response, User, World, genesis, prepare_from,
};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use store_core::state::StateMachine;
use store_core::{Outcome, Txn};

const COUNT: usize = 1300;

fn key(name: &str) -> String {
    format!("/core/configmaps/default/{name}")
}

fn put(machine: &mut StateMachine, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}});
    machine.commit(&Txn::put(key(name), object.to_string()));
}

fn part(machine: &StateMachine, config: &Config, place: Option<&DeletionPlace>) -> DeletionPart {
    let path = "/api/v1/namespaces/default/configmaps";
    let info = RequestInfo::parse(&http::Method::DELETE, path, "").expect("info");
    let request = Request { info, headers: http::HeaderMap::new(), body: bytes::Bytes::new() };
    let derived = Derived::default();
    let world = World { snapshot: machine.snapshot(), derived: &derived, config };
    let user = User::authenticated("admin", &["system:masters".into()]);
    let now = "2026-01-01T00:00:00Z".parse().expect("time");
    let mut rng = StdRng::seed_from_u64(1);
    let progress = Progress { place: place.cloned(), ..Progress::default() };
    match prepare_from(&world, &request, &user, now, &mut Ids::new(&mut rng), &progress) {
        Prepared::Part(part) => *part,
        _ => panic!("not a part"),
    }
}

fn names(response: &Response) -> Vec<String> {
    let list: Value = serde_json::from_slice(&response.body.to_bytes()).expect("JSON");
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_large_collection_is_deleted_in_parts() {
    let config = Config::new(vec![SigningKey::from_seed(&[1; 32]).expect("key")]);
    let mut machine = StateMachine::new();
    let now = "2026-01-01T00:00:00Z".parse().expect("time");
    for txn in genesis::plan(machine.snapshot(), &config, now, &mut Ids::new(&mut StdRng::seed_from_u64(1))) {
        machine.commit(&txn);
    }
    let expected: Vec<String> = (0..COUNT).map(|number| format!("m-{number:04}")).collect();
    expected.iter().for_each(|name| put(&mut machine, name));
    let mut deleted = Deleted::default();
    let mut next = part(&machine, &config, None);
    let (mut parts, mut conflicts) = (0, 0);
    let answer = loop {
        assert!(next.txn.ops.len() < COUNT / 2, "a part is a part");
        if parts == 1 && conflicts == 0 {
            // Someone changes an object of this part, and makes one that would come later.
            put(&mut machine, "m-0700");
            put(&mut machine, "z-new");
        }
        let (outcome, _) = machine.commit(&next.txn);
        let mut place = next.from.clone();
        if let Outcome::Committed { .. } = outcome {
            parts += 1;
            place = next.next.clone().unwrap_or(place);
            if let Some(response) = next.settle(&outcome, &mut deleted) {
                break response;
            }
        } else {
            conflicts += 1;
        }
        next = part(&machine, &config, Some(&place));
    };
    assert_eq!((parts, conflicts), (3, 1));
    assert_eq!(names(&answer), expected, "each object once");
    let left: Vec<_> = machine.snapshot().prefix(key("").as_bytes()).map(|(key, _)| key.clone()).collect();
    assert_eq!(left, [key("z-new")], "what came later stays");
}
