use super::*;

fn authority(id: &str) -> AuthorityKey {
    AuthorityKey { id: id.to_owned(), certificate: String::new(), key: String::new(), voucher: None }
}

fn keyring() -> Keyring {
    let token = TokenKey { id: "t1".to_owned(), seed: String::new() };
    Keyring { authority: Succession::of(authority("a")), token_key: Succession::of(token), store_key: 0 }
}

fn holder(name: &str, accepts: &[&str], issuer: &str, token_keys: &[&str]) -> Holder {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let report = Report {
        accepts: owned(accepts),
        issuer: issuer.to_owned(),
        expires: at(90_000),
        token_keys: owned(token_keys),
        store_keys: vec![0],
    };
    Holder { name: name.to_owned(), report: Some(report) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn ids<K: Named + Clone>(succession: &Succession<K>) -> Vec<&str> {
    succession.accepted().map(Named::id).collect()
}

#[test]
fn an_authority_is_announced_then_used_then_dropped() {
    let mut keyring = keyring();
    assert!(keyring.authority.announce(authority("b"), 100));
    assert!(!keyring.authority.announce(authority("c"), 100), "one after the other");

    // It is not used before the last one accepts it.
    let mut holders = Holders {
        servers: vec![holder("server s1", &["a", "b"], "a", &["t1"])],
        nodes: vec![holder("node n1", &["a"], "a", &[])],
    };
    assert!(keyring.advanced(&holders, at(0)).is_none());
    assert_eq!(keyring.status(&holders).authority.waits_for, ["node n1"]);
    holders.nodes[0] = holder("node n1", &["a", "b"], "a", &[]);
    let used = keyring.advanced(&holders, at(10)).expect("a step");
    assert_eq!(ids(&used.authority), ["b", "a"]);
    assert_eq!(used.authority.former[0].until, at(110));

    // It is not dropped before its time, and not while anybody has a certificate of it.
    assert!(used.advanced(&holders, at(109)).is_none());
    assert!(used.advanced(&holders, at(110)).is_none());
    assert_eq!(used.status(&holders).authority.waits_for, ["server s1", "node n1"]);
    holders.servers[0] = holder("server s1", &["b", "a"], "b", &["t1"]);
    assert!(used.advanced(&holders, at(110)).is_none());
    holders.nodes[0] = holder("node n1", &["b", "a"], "b", &[]);
    assert!(used.advanced(&holders, at(109)).is_none());
    let dropped = used.advanced(&holders, at(110)).expect("a step");
    assert_eq!(ids(&dropped.authority), ["b"]);
    assert!(dropped.advanced(&holders, at(1000)).is_none(), "planned again, nothing is left to do");
}

#[test]
fn a_holder_that_said_nothing_is_waited_for() {
    let mut keyring = keyring();
    keyring.authority.announce(authority("b"), 0);
    let silent = Holder { name: "server s2".to_owned(), report: None };
    let holders =
        Holders { servers: vec![holder("server s1", &["a", "b"], "a", &["t1"]), silent], nodes: Vec::new() };
    assert!(keyring.advanced(&holders, at(0)).is_none());
    assert_eq!(keyring.status(&holders).authority.waits_for, ["server s2"]);
}

#[test]
fn the_time_of_former_keys_can_be_ended() {
    let mut keyring = keyring();
    keyring.authority.announce(authority("b"), 1000);
    let holders =
        Holders { servers: vec![holder("server s1", &["a", "b"], "b", &["t1"])], nodes: Vec::new() };
    let mut used = keyring.advanced(&holders, at(0)).expect("a step");
    assert!(used.advanced(&holders, at(1)).is_none());
    used.authority.expire_former(at(1));
    assert_eq!(ids(&used.advanced(&holders, at(1)).expect("a step").authority), ["b"]);
}

#[test]
fn a_token_key_signs_when_all_servers_accept_it() {
    let mut keyring = keyring();
    keyring.token_key.announce(TokenKey { id: "t2".to_owned(), seed: String::new() }, 60);
    let mut holders = Holders {
        servers: vec![
            holder("server s1", &["a"], "a", &["t1", "t2"]),
            holder("server s2", &["a"], "a", &["t1"]),
        ],
        // Nodes verify no tokens.
        nodes: vec![holder("node n1", &["a"], "a", &[])],
    };
    assert!(keyring.advanced(&holders, at(0)).is_none());
    assert_eq!(keyring.status(&holders).token_key.waits_for, ["server s2"]);
    holders.servers[1] = holder("server s2", &["a"], "a", &["t1", "t2"]);
    let used = keyring.advanced(&holders, at(0)).expect("a step");
    assert_eq!(ids(&used.token_key), ["t2", "t1"]);
    assert!(used.advanced(&holders, at(59)).is_none());
    assert_eq!(ids(&used.advanced(&holders, at(60)).expect("a step").token_key), ["t2"]);
}

#[test]
fn holders_are_read_from_what_servers_and_nodes_have_said() {
    let said = r#"{"accepts":["a"],"issuer":"a","expires":"2026-01-01T00:00:00Z","storeKeys":[1]}"#;
    let node = serde_json::json!({"metadata": {"name": "n1", "annotations": {ANNOTATION: said}}}).to_string();
    let other = serde_json::json!({"metadata": {"name": "n2"}}).to_string();
    let snapshot = Snapshot::for_tests([
        ("/core/nodes/n1", node),
        ("/core/nodes/n2", other),
        ("/keyring-reports/1", said.to_owned()),
    ]);
    let holders = Holders::read(&snapshot, &[(1, "s1".to_owned()), (2, "s2".to_owned())]);
    let names: Vec<(&str, bool)> = holders
        .servers
        .iter()
        .chain(&holders.nodes)
        .map(|holder| (holder.name.as_str(), holder.report.is_some()))
        .collect();
    assert_eq!(names, [("server s1", true), ("server s2", false), ("node n1", true)]);
    let mut keyring = keyring();
    keyring.store_key = 1;
    assert_eq!(keyring.status(&holders).store_key.waits_for, ["server s2"]);
    assert_eq!(keyring.status(&holders).certificates.len(), 2);
}
