use std::os::unix::fs::PermissionsExt as _;

use rcgen::DnType;

use super::*;

/// What the cluster agreed on at each step of a rotation.
fn steps(authority: &Authority) -> [Keyring; 3] {
    let now = jiff::Timestamp::now();
    let mut announced = authority.keyring();
    announced.authority.announce(authority.successor().expect("made"), 0);
    announced.token_key.announce(new_token_key().expect("made"), 0);
    let mut used = announced.clone();
    let next = used.authority.next.take().expect("announced").key;
    let key = std::mem::replace(&mut used.authority.current, next);
    used.authority.former = vec![apiserver_core::keyring::Former { key, until: now }];
    let mut dropped = used.clone();
    dropped.authority.former.clear();
    [announced, used, dropped]
}

/// Whether a client that knows `roots` accepts the certificate of a server.
fn accepted(roots: &RootCertStore, issued: &Issued) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider)
            .build()
            .expect("a verifier");
    let chain = issued.chain();
    let name = rustls::pki_types::ServerName::try_from("kubernetes").expect("a name");
    let now = rustls::pki_types::UnixTime::now();
    rustls::client::danger::ServerCertVerifier::verify_server_cert(
        &*verifier,
        &chain[0],
        &chain[1..],
        &name,
        &[],
        now,
    )
    .is_ok()
}

#[test]
fn who_knows_only_the_authority_before_accepts_servers_until_it_is_dropped() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let authority = Authority::load_or_create(dir.path()).expect("created");
    let server = || authority.issue_server(&[], COMPONENT_LIFETIME).expect("issued");
    let (before, old_server) = (authority.roots().expect("roots"), server());
    let old_signer = authority.signing_keys()[0].id().to_owned();
    let [announced, used, dropped] = steps(&authority);

    assert!(authority.adopt(&announced).expect("adopted"));
    assert!(!authority.adopt(&announced).expect("adopted"), "nothing is new");
    assert_eq!(server().issuer, old_server.issuer, "it is not used yet");
    assert_eq!(authority.signing_keys()[0].id(), old_signer);
    assert_eq!(authority.signing_keys().len(), 2);
    let both = authority.roots().expect("roots");

    authority.adopt(&used).expect("adopted");
    let new_server = server();
    assert_eq!(new_server.issuer, used.authority.current.id);
    assert!(accepted(&before, &new_server), "by its voucher");
    assert!(accepted(&both, &new_server) && accepted(&both, &old_server));
    assert!(accepted(&authority.roots().expect("roots"), &old_server));
    assert_eq!(ids(&authority.ca_pem()).len(), 2);
    assert_eq!(issuer_of(&new_server.cert_pem, &authority.ca_pem()), Some(new_server.issuer));
    assert_eq!(issuer_of(&old_server.cert_pem, &authority.ca_pem()), Some(old_server.issuer.clone()));

    authority.adopt(&dropped).expect("adopted");
    assert!(!accepted(&before, &server()), "nobody vouches for it any more");
    assert!(!accepted(&authority.roots().expect("roots"), &old_server));
    assert!(accepted(&authority.roots().expect("roots"), &server()));

    // It is what the next start finds, and the files of before are gone.
    let again = Authority::load_or_create(dir.path()).expect("loaded");
    assert!(again.keyring() == dropped);
    assert!(!dir.path().join("ca.key").exists() && !dir.path().join("sa.key").exists());
    let bundle = std::fs::read_to_string(dir.path().join("ca.crt")).expect("a bundle");
    assert_eq!(ids(&bundle), [dropped.authority.current.id]);
}

#[test]
fn another_process_finds_the_keys_in_the_files() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let authority = Authority::load_or_create(dir.path()).expect("created");
    let other = Authority::load_or_create(dir.path()).expect("loaded");
    let mut changes = other.changes();
    other.reload().expect("read");
    assert!(!changes.has_changed().expect("open"));
    let [announced, ..] = steps(&authority);
    authority.adopt(&announced).expect("adopted");
    other.reload().expect("read");
    assert!(changes.has_changed().expect("open") && other.ca_pem() == authority.ca_pem());
    changes.mark_unchanged();
    other.reload().expect("read");
    assert!(!changes.has_changed().expect("open"));
}

#[test]
fn keys_of_the_store_are_counted_up_and_forgotten() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let authority = Authority::load_or_create(dir.path()).expect("created");
    let numbers =
        |authority: &Authority| -> Vec<u64> { authority.store_keys().iter().map(|key| key.number).collect() };
    authority.make_store_key(2).expect("made");
    assert_eq!(numbers(&authority), [2, 0]);
    assert_eq!(numbers(&Authority::load_or_create(dir.path()).expect("loaded")), [2, 0]);
    authority.drop_store_keys(|_| false).expect("nothing is unused");
    assert_eq!(numbers(&authority), [2, 0]);
    authority.drop_store_keys(|_| true).expect("dropped");
    assert_eq!(numbers(&authority), [2], "the newest is never dropped");
    assert_eq!(numbers(&Authority::load_or_create(dir.path()).expect("loaded")), [2]);
}

#[test]
fn a_second_load_finds_the_same_authority() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let first = Authority::load_or_create(dir.path()).expect("created");
    let second = Authority::load_or_create(dir.path()).expect("loaded");
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert!(first.keyring() == second.keyring());
    assert_eq!(first.store_keys()[0].material, second.store_keys()[0].material);
    for file in ["ca.key", "sa.key", "store.key"] {
        let mode = std::fs::metadata(dir.path().join(file)).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_lost_key_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("temporary folder");
    Authority::load_or_create(dir.path()).expect("created");
    std::fs::remove_file(dir.path().join("ca.key")).expect("removed");
    let Err(error) = Authority::load_or_create(dir.path()) else { panic!("a lost key was accepted") };
    assert!(error.to_string().contains("restore the key"), "{error}");
}

#[test]
fn of_a_signing_request_only_the_key_counts() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let authority = Authority::load_or_create(dir.path()).expect("created");
    let key = KeyPair::generate().expect("key");
    let mut asked = ca_params();
    // A request has no issuer yet.
    asked.use_authority_key_identifier_extension = false;
    asked.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let request = asked.serialize_request(&key).expect("request").pem().expect("PEM");
    let pem = authority.sign_client(&request, "ada", "crew", COMPONENT_LIFETIME).expect("signed");
    let certificate = parse_cert(Path::new("signed"), &pem).expect("PEM");
    let subject = crate::tls::certificate_subject(&certificate).expect("parsed");
    assert_eq!((subject.name.as_str(), subject.groups), ("ada", vec!["crew".to_owned()]));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("parsed");
    assert!(!parsed.is_ca());
    assert!(check_pair(Path::new("signed"), &certificate, &key).is_ok());
    assert!(authority.sign_client("no request", "ada", "crew", COMPONENT_LIFETIME).is_err());
}

#[test]
fn a_client_certificate_names_user_and_group() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let authority = Authority::load_or_create(dir.path()).expect("created");
    let issued = authority.issue_client("ada", Some("crew"), ADMIN_LIFETIME).expect("issued");
    let user = crate::tls::certificate_subject(&issued.cert_der).expect("parsed");
    assert_eq!(user.name, "ada");
    assert_eq!(user.groups, ["crew"]);
    assert!(issued.renew_at() < issued.not_after);
}
