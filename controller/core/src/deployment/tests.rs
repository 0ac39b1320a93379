//! Rollouts played to their end, and single plans as text.

use serde_json::{Value, json};

use crate::model::{Model, text};
use crate::world::{Controller, Key};

fn rollouts(seed: u64) -> Model {
    let mut model = Model::new(seed);
    model.running = vec![Controller::Deployment, Controller::ReplicaSet];
    model
}

fn deployment(replicas: i64, image: &str, strategy: Value) -> Value {
    json!({
        "metadata": {"name": "web", "annotations": {"note": "kept"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// Changes the spec of the Deployment as a user would.
fn change(model: &mut Model, edit: impl FnOnce(&mut Value)) {
    let mut current = model.of("deployments").remove(0);
    edit(&mut current);
    model.put("deployments", current);
}

fn set_image(model: &mut Model, image: &str) {
    change(model, |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
    });
}

fn play(model: &mut Model, rounds: usize, chance: u32, becomes_ready: impl Fn(&Value) -> bool) {
    for _ in 0..rounds {
        model.settle();
        model.run_pods(chance, &becomes_ready);
        model.advance(1);
    }
    model.settle();
}

fn image(pod: &Value) -> String {
    text(&pod["spec"]["containers"][0]["image"])
}

fn status(model: &Model) -> Value {
    model.of("deployments")[0]["status"].clone()
}

fn condition(model: &Model, kind: &str) -> String {
    let status = status(model);
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|each| each["type"] == kind);
    found.map_or("absent".into(), |each| format!("{} {}", text(&each["status"]), text(&each["reason"])))
}

/// 10 replicas, surge 3, unavailable 2: what has to hold at every moment of a rollout.
fn within_bounds(model: &Model) {
    let sets = model.of("replicasets");
    let planned: i64 = sets.iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).sum();
    assert!(planned <= 13, "{planned} pods planned: {:#?}", model.log);
    let serves = |pod: &&Value| {
        pod["status"]["conditions"][0]["status"] == "True"
            && !pod["metadata"]["deletionTimestamp"].is_string()
    };
    let available = model.of("pods").iter().filter(serves).count();
    assert!(available >= 8, "{available} pods available: {:#?}", model.log);
}

#[test]
fn a_rollout_stays_within_its_bounds_and_ends() {
    for seed in 0..12 {
        let mut model = rollouts(seed);
        model.put("deployments", deployment(10, "v1", rolling(json!("25%"), json!("25%"))));
        play(&mut model, 12, 100, |_| true);
        assert_eq!(status(&model)["availableReplicas"], 10);
        model.invariant = Some(within_bounds);
        set_image(&mut model, "v2");
        play(&mut model, 120, 30, |_| true);
        assert!(model.of("pods").iter().all(|pod| image(pod) == "v2"));
        assert_eq!(status(&model)["updatedReplicas"], 10, "seed {seed}");
        assert_eq!(condition(&model, "Progressing"), "True NewReplicaSetAvailable");
        assert_eq!(
            model.of("deployments")[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
            "2"
        );
    }
}

#[test]
fn the_largest_size_does_not_wrap() {
    let mut model = rollouts(5);
    // Without pods: nobody waits for two thousand million of them.
    model.running = vec![Controller::Deployment];
    model.put("deployments", deployment(i64::from(i32::MAX), "v1", rolling(json!("25%"), json!("25%"))));
    model.settle();
    set_image(&mut model, "v2");
    model.settle();
    let sizes: Vec<i64> =
        model.of("replicasets").iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<i64>(), i64::from(i32::MAX), "{sizes:?}");
    assert!(sizes.iter().all(|size| *size >= 0), "{sizes:?}");
}

#[test]
fn a_bad_release_stalls_and_is_taken_back() {
    for seed in 0..6 {
        let mut model = rollouts(seed);
        model.put("deployments", deployment(10, "v1", rolling(json!("25%"), json!("25%"))));
        play(&mut model, 12, 100, |_| true);
        model.invariant = Some(within_bounds);
        set_image(&mut model, "bad");
        play(&mut model, 40, 50, |pod| image(pod) != "bad");
        assert_eq!(status(&model)["availableReplicas"], 8);
        model.advance(700);
        model.settle();
        assert_eq!(condition(&model, "Progressing"), "False ProgressDeadlineExceeded");
        assert_eq!(condition(&model, "Available"), "True MinimumReplicasAvailable");
        set_image(&mut model, "v1");
        play(&mut model, 60, 50, |_| true);
        assert!(model.of("pods").iter().all(|pod| image(pod) == "v1"));
        assert_eq!(status(&model)["availableReplicas"], 10);
        let sets = model.of("replicasets");
        let v1 = sets
            .iter()
            .find(|set| set["spec"]["template"]["spec"]["containers"][0]["image"] == "v1")
            .unwrap();
        let annotations = &v1["metadata"]["annotations"];
        assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
        assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
        assert_eq!(annotations["note"], "kept");
    }
}

#[test]
fn scaling_in_the_midst_of_a_rollout_is_shared() {
    let mut model = rollouts(1);
    model.put("deployments", deployment(10, "v1", rolling(json!(3), json!(2))));
    play(&mut model, 12, 100, |_| true);
    set_image(&mut model, "bad");
    play(&mut model, 20, 100, |pod| image(pod) != "bad");
    let sizes = |model: &Model| {
        let mut sizes: Vec<i64> =
            model.of("replicasets").iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&model), [5, 8]);
    change(&mut model, |deployment| deployment["spec"]["replicas"] = json!(20));
    let work = crate::world::Work::new(Controller::Deployment, Key::new("default", "web"));
    let (plan, _) =
        crate::dispatch::plan(&mut model.world, &work, &Default::default(), model.now, &mut model.rng);
    let told: Vec<String> =
        plan.actions().filter_map(|action| Some(action.succeeded.as_ref()?.message.clone())).collect();
    assert!(told[0].contains("from 8 to 14"), "{told:?}");
    assert!(told[1].contains("from 5 to 9"), "{told:?}");
}

#[test]
fn events_tell_each_step() {
    let mut model = rollouts(3);
    model.put("deployments", deployment(4, "v1", rolling(json!(1), json!(1))));
    play(&mut model, 8, 100, |_| true);
    model.log.clear();
    set_image(&mut model, "v2");
    model.settle();
    let told: Vec<&str> =
        model.log.iter().filter(|line| line.starts_with("ScalingReplicaSet")).map(String::as_str).collect();
    assert!(told[0].ends_with("from 0 to 1"), "{told:?}");
    assert!(told[1].contains("Scaled down") && told[1].ends_with("from 4 to 3"), "{told:?}");
    assert!(told[2].contains("Scaled up") && told[2].ends_with("from 1 to 2"), "{told:?}");
}

#[test]
fn recreate_starts_nothing_before_all_has_ended() {
    fn never_both(model: &Model) {
        let mut images: Vec<String> = model.of("pods").iter().map(image).collect();
        images.dedup();
        assert!(images.len() < 2, "{images:?}");
    }
    for seed in 0..6 {
        let mut model = rollouts(seed);
        model.put("deployments", deployment(3, "v1", json!({"type": "Recreate"})));
        play(&mut model, 8, 100, |_| true);
        model.invariant = Some(never_both);
        set_image(&mut model, "v2");
        play(&mut model, 60, 40, |_| true);
        assert_eq!(status(&model)["updatedReplicas"], 3);
    }
}

#[test]
fn history_is_kept_to_its_limit_and_a_pause_holds_the_rollout() {
    let mut model = rollouts(5);
    model.put("deployments", deployment(2, "v0", rolling(json!(1), json!(0))));
    for version in 1..6 {
        play(&mut model, 20, 100, |_| true);
        set_image(&mut model, &format!("v{version}"));
    }
    play(&mut model, 20, 100, |_| true);
    assert_eq!(model.of("replicasets").len(), 3);
    change(&mut model, |deployment| deployment["spec"]["paused"] = json!(true));
    set_image(&mut model, "v9");
    play(&mut model, 10, 100, |_| true);
    // Paused, all sets are old ones: the oldest beyond the limit goes.
    assert_eq!(model.of("replicasets").len(), 2);
    assert_eq!(condition(&model, "Progressing"), "Unknown DeploymentPaused");
    change(&mut model, |deployment| deployment["spec"]["paused"] = json!(false));
    play(&mut model, 20, 100, |_| true);
    assert!(model.of("pods").iter().all(|pod| image(pod) == "v9"));
}
