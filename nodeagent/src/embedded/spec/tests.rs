//! What containers get by default and on request.

use nodeagent_core::runtime::Security;

use super::*;

fn config() -> ContainerConfig {
    ContainerConfig {
        name: "c".to_owned(),
        attempt: 0,
        image_id: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        mounts: Vec::new(),
        log_path: PathBuf::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        processes_of: None,
        resources: Default::default(),
        security: Security {
            run_as_user: None,
            run_as_group: None,
            run_as_non_root: false,
            supplemental_groups: Vec::new(),
            privileged: false,
            read_only_root: false,
            no_new_privileges: false,
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            seccomp: Default::default(),
        },
        labels: BTreeMap::new(),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn commands_and_arguments_replace_those_of_the_image() {
    let image = RunConfig { entrypoint: words("/entry"), cmd: words("a b"), ..RunConfig::default() };
    for (command, args, expected) in
        [("", "", "/entry a b"), ("", "c", "/entry c"), ("/x", "", "/x"), ("/x", "c", "/x c")]
    {
        let config = ContainerConfig { command: words(command), args: words(args), ..config() };
        assert_eq!(process(&config, &image, "").unwrap().args, words(expected), "{command:?} {args:?}");
    }
    assert!(process(&config(), &RunConfig::default(), "").is_err());
}

#[test]
fn capabilities_are_added_and_dropped() {
    let bits = |add: &str, drop: &str| {
        let mut config = config();
        config.security.capabilities_add = words(add);
        config.security.capabilities_drop = words(drop);
        capabilities(&config)
    };
    let bit = |name: &str| 1u64 << capability(name).unwrap();
    assert_eq!(bits("", "ALL").unwrap(), 0);
    assert_eq!(bits("NET_BIND_SERVICE", "ALL").unwrap(), bit("NET_BIND_SERVICE"));
    assert_eq!(bits("SYS_TIME", "").unwrap() & bit("SYS_TIME"), bit("SYS_TIME"));
    assert_eq!(bits("", "KILL").unwrap() & bit("KILL"), 0);
    assert_eq!(bits("ALL", "SYS_ADMIN").unwrap() & bit("SYS_ADMIN"), 0);
    assert_eq!(bits("", "").unwrap() & bit("SYS_ADMIN"), 0);
    assert!(bits("NO_SUCH", "").is_err());
    assert_eq!(bit("CHECKPOINT_RESTORE"), 1 << 40);
}

#[test]
fn root_is_refused_where_the_pod_forbids_it() {
    for (user, uid, allowed) in [
        ("", None, false),
        ("0", None, false),
        ("web", None, false),
        ("7:8", None, true),
        ("", Some(5), true),
    ] {
        let mut config = ContainerConfig { command: words("/x"), ..config() };
        config.security.run_as_non_root = true;
        config.security.run_as_user = uid;
        let image = RunConfig { user: user.to_owned(), ..RunConfig::default() };
        assert_eq!(process(&config, &image, "").is_ok(), allowed, "{user:?} {uid:?}");
    }
}

#[test]
fn the_pods_environment_is_laid_over_the_images() {
    let image = RunConfig { env: words("A=1 PATH=/bin"), ..RunConfig::default() };
    let env = vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "3".to_owned())];
    let config = ContainerConfig { command: words("/x"), env, ..config() };
    assert_eq!(process(&config, &image, "h").unwrap().env, words("PATH=/bin HOSTNAME=h A=3 B=2"));
}
