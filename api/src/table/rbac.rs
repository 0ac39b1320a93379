//! Prints who may do what.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, Printer, cell, text, wide};

pub const BINDING: Printer = Printer {
    columns: &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    cells: binding,
};

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &'static str| {
        cell::list(&object["subjects"]).iter().filter(move |one| cell::str(&one["kind"]) == kind)
    };
    let named = |kind| cell::joined(subjects(kind).map(|one| cell::str(&one["name"])));
    let accounts = subjects("ServiceAccount");
    let accounts: Vec<String> =
        accounts.map(|one| format!("{}/{}", cell::str(&one["namespace"]), cell::str(&one["name"]))).collect();
    vec![
        cell::name(object),
        format!("{}/{}", cell::str(&role["kind"]), cell::str(&role["name"])).into(),
        cell::age(object, now),
        named("User").into(),
        named("Group").into(),
        accounts.join(", ").into(),
    ]
}
