//! The machine in scripted situations and under random orders of events.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::probe::Outcome;
use crate::runtime::{ContainerId, ContainerState, Image, SandboxId};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("in range")
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "resourceVersion": "1"},
        "spec": spec,
    }))
    .expect("a pod")
}

/// A node that does what it is asked, and an API that takes every status.
struct World {
    machine: PodMachine,
    second: i64,
    log: Vec<String>,
    pending: Vec<Action>,
    containers: BTreeMap<String, ContainerStatus>,
    revision: u64,
    status: serde_json::Value,
    /// What comes of other sizes.
    sizes: Result<(), ResizeFailure>,
}

impl World {
    fn new(pod: Pod) -> Self {
        let machine = PodMachine::new(Arc::new(pod), Arc::new(NodeFacts::default()), at(0));
        let mut world = Self {
            machine,
            second: 0,
            log: Vec::new(),
            pending: Vec::new(),
            containers: BTreeMap::new(),
            revision: 1,
            status: json!({}),
            sizes: Ok(()),
        };
        let nothing = Observed { began: at(0), sandboxes: vec![], containers: vec![] };
        world.tell(Event::Observed(nothing));
        world
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(event, at(self.second));
        while let Some(action) = self.machine.poll_action() {
            let line = match &action {
                Action::CreateContainer { container, attempt, .. } => format!("create {container}/{attempt}"),
                Action::StartContainer { container, .. } => format!("start {container}"),
                Action::StopContainer { id, grace } => format!("stop {} {}", id.0, grace.as_secs()),
                Action::RunHook { container, hook, .. } => format!("{hook:?} {container}"),
                Action::DeletePod { .. } => "delete".into(),
                Action::RunSandbox { attempt } => format!("sandbox {attempt}"),
                Action::UnmountVolumes => "unmount".into(),
                Action::Resize { container, .. } => format!("resize {container}"),
                _ => String::new(),
            };
            if !line.is_empty() {
                self.log.push(line);
            }
            self.pending.push(action);
        }
    }

    fn answer(&mut self, action: Action) {
        let event = match action {
            Action::MountVolumes => Event::Mounted(Ok(())),
            Action::UnmountVolumes => Event::Unmounted(Ok(())),
            Action::PullImage { container } => Event::Image { container, outcome: Ok((image(), None)) },
            Action::RunSandbox { attempt } => Event::SandboxRan(Ok(sandbox(attempt))),
            Action::StopSandbox(id) => Event::SandboxStopped(id, Ok(())),
            Action::RemoveSandbox(id) => Event::SandboxRemoved(id, Ok(())),
            Action::CreateContainer { container, attempt, .. } => {
                let id = ContainerId(format!("{container}-{attempt}"));
                Event::Created { container, outcome: Ok(id) }
            }
            Action::StartContainer { container, .. } => Event::Started { container, outcome: Ok(()) },
            Action::RunHook { id, hook, .. } => Event::HookDone { id, hook, outcome: Ok(()) },
            Action::StopContainer { id, .. } => Event::Stopped { id, outcome: Ok(()) },
            Action::Probe { id, kind, .. } => Event::Probed { id, kind, outcome: Outcome::Success },
            Action::Resize { id, .. } => Event::Resized { id, outcome: self.sizes.clone() },
            Action::AwaitDrain => Event::Drained,
            Action::PatchStatus(body) => {
                merge(&mut self.status, &body["status"]);
                self.revision += 1;
                Event::Patched(Ok(self.revision))
            }
            Action::DeletePod { .. } => Event::Deleted(Ok(())),
            Action::RemoveContainer { .. } | Action::Emit(_) => return,
        };
        self.tell(event);
    }

    fn settle(&mut self) {
        while !self.pending.is_empty() {
            let action = self.pending.remove(0);
            self.answer(action);
        }
    }

    fn exit(&mut self, container: &str, exit_code: i32) {
        let (current, _) = self.machine.instances(container).expect("a container");
        let mut status = current.expect("an instance").clone();
        status.state = ContainerState::Exited {
            started_at: Some(at(self.second)),
            finished_at: at(self.second),
            exit_code,
            oom_killed: false,
            reason: String::new(),
            message: String::new(),
        };
        self.containers.insert(status.id.0.clone(), status.clone());
        let observed = Observed { began: at(-1), sandboxes: vec![], containers: vec![status] };
        self.tell(Event::Observed(observed));
        self.settle();
    }

    fn wait(&mut self, seconds: i64) {
        self.second += seconds;
        self.tell(Event::Tick);
        self.settle();
    }

    fn delete(&mut self, grace: i64) {
        let mut pod = (**self.machine.pod()).clone();
        pod.metadata.deletion_timestamp = Some(clock::time(at(self.second)));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.tell(Event::Desired(Arc::new(pod)));
    }

    fn took(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    fn state(&self, container: usize) -> String {
        let state = &self.status["containerStatuses"][container]["state"];
        let (kind, body) = state.as_object().and_then(|it| it.iter().next()).expect("a state");
        format!("{kind} {}", body["reason"].as_str().unwrap_or_default()).trim_end().to_owned()
    }
}

fn merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
    if let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) {
        into.extend(patch.clone());
    }
}

fn image() -> Image {
    Image {
        id: "sha256:1".into(),
        tags: vec![],
        digests: vec![],
        size_bytes: 1,
        user: String::new(),
        last_used_at: None,
    }
}

fn sandbox(attempt: u32) -> SandboxStatus {
    SandboxStatus {
        id: SandboxId(format!("s{attempt}")),
        pod_uid: "u".into(),
        pod_name: "p".into(),
        pod_namespace: "d".into(),
        attempt,
        ready: true,
        created_at: at(0),
        ips: vec!["10.0.0.9".parse().expect("an address")],
        labels: BTreeMap::new(),
    }
}

#[test]
fn init_containers_come_first_and_sidecars_stop_last() {
    let mut world = World::new(pod(json!({
        "initContainers": [{"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "x", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
    })));
    world.settle();
    assert_eq!(world.took(), "sandbox 0, create i/0, start i");
    assert_eq!(world.state(0), "waiting PodInitializing");
    world.exit("i", 0);
    assert_eq!(world.took(), "create s/0, start s, create a/0, start a");
    assert_eq!(world.status["phase"], "Running");
    assert_eq!(world.status["podIP"], "10.0.0.9");
    world.delete(30);
    world.settle();
    assert_eq!(world.took(), "PreStop a, stop a-0 30, stop s-0 30, unmount, delete");
    assert_eq!(world.machine.state(), State::Gone);
}

#[test]
fn an_ended_pod_says_whether_it_was_initialized() {
    let check = |init: i32, app: Option<i32>, expected: &str| {
        let mut world = World::new(pod(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "a", "image": "x"}],
        })));
        world.settle();
        world.exit("i", init);
        if let Some(code) = app {
            world.exit("a", code);
        }
        let (_, status) = world.machine.acknowledged.as_ref().expect("a status");
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|it| it.type_ == "Initialized").expect("a condition");
        let text = format!("{} {}", found.status, found.reason.as_deref().unwrap_or_default());
        assert_eq!(text.trim_end(), expected);
    };
    check(3, None, "False ContainersNotInitialized");
    check(0, Some(1), "True");
    check(0, Some(0), "True PodCompleted");
}

#[test]
fn a_crashing_container_backs_off() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a", "image": "x"}]})));
    world.settle();
    world.exit("a", 1);
    assert_eq!(world.took(), "sandbox 0, create a/0, start a, create a/1, start a");
    world.exit("a", 1);
    assert_eq!((world.took().as_str(), world.state(0).as_str()), ("", "waiting CrashLoopBackOff"));
    assert_eq!(world.status["containerStatuses"][0]["lastState"]["terminated"]["reason"], "Error");
    world.wait(11);
    assert_eq!(world.took(), "create a/2, start a");
    assert_eq!(world.status["containerStatuses"][0]["restartCount"], 2);
}

#[test]
fn a_pod_that_never_restarts_ends() {
    for (code, phase, reason) in [(0, "Succeeded", "terminated Completed"), (3, "Failed", "terminated Error")]
    {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]});
        let mut world = World::new(pod(spec));
        world.settle();
        world.exit("a", code);
        assert_eq!(world.machine.state(), State::Ended);
        assert_eq!((world.status["phase"].as_str(), world.state(0).as_str()), (Some(phase), reason));
    }
}

#[test]
fn a_running_pod_is_adopted_without_restarts() {
    let mut machine = PodMachine::new(
        Arc::new(pod(json!({"containers": [{"name": "a", "image": "x"}]}))),
        Arc::default(),
        at(0),
    );
    let running = ContainerStatus {
        id: ContainerId("old".into()),
        sandbox: SandboxId("s0".into()),
        name: "a".into(),
        attempt: 4,
        image: "x".into(),
        image_id: "sha256:1".into(),
        state: ContainerState::Running { started_at: at(-100) },
        log_path: std::path::PathBuf::new(),
        labels: BTreeMap::new(),
    };
    let observed = Observed { began: at(0), sandboxes: vec![sandbox(0)], containers: vec![running] };
    machine.handle(Event::Observed(observed), at(0));
    let actions: Vec<_> = std::iter::from_fn(|| machine.poll_action()).collect();
    assert!(matches!(actions.as_slice(), [Action::MountVolumes, Action::PatchStatus(_)]), "{actions:?}");
    let status = machine.status(at(0));
    let container = &status.container_statuses.expect("statuses")[0];
    assert_eq!((container.restart_count, container.ready), (4, true));
}

#[test]
fn any_order_of_answers_converges() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut world = World::new(pod(json!({
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x",
                "readinessProbe": {"tcpSocket": {"port": 1}}}],
        })));
        let delete_at = rng.random_range(0..40);
        for step in 0..200 {
            if step == delete_at {
                world.delete(5);
            }
            if world.pending.is_empty() {
                world.second += 1;
                world.tell(Event::Tick);
            } else {
                let action = world.pending.remove(rng.random_range(0..world.pending.len()));
                world.answer(action);
            }
            let init = world.machine.instances("i").and_then(|(current, _)| current.cloned());
            if init.is_some_and(|it| matches!(it.state, ContainerState::Running { .. }))
                && rng.random_bool(0.5)
            {
                let (current, _) = world.machine.instances("i").expect("a container");
                let mut status = current.expect("an instance").clone();
                status.state = ContainerState::Exited {
                    started_at: None,
                    finished_at: at(world.second),
                    exit_code: 0,
                    oom_killed: false,
                    reason: String::new(),
                    message: String::new(),
                };
                world.tell(Event::Observed(Observed {
                    began: at(-1),
                    sandboxes: vec![],
                    containers: vec![status],
                }));
            }
        }
        assert_eq!(world.machine.state(), State::Gone, "seed {seed}: {:?}", world.log);
        for name in ["create a/0", "create b/0", "create i/0", "unmount", "delete", "sandbox 0"] {
            let count = world.log.iter().filter(|line| *line == name).count();
            assert!(count <= 1, "seed {seed}: {name} was asked for {count} times");
        }
    }
}

impl World {
    /// The pod's spec is another one.
    fn change(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut pod = serde_json::to_value(&**self.machine.pod()).expect("a pod");
        change(&mut pod["spec"]);
        pod["status"] = self.status.clone();
        pod["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.tell(Event::Desired(Arc::new(serde_json::from_value(pod).expect("a pod"))));
        self.settle();
    }

    fn condition(&self, kind: &str) -> String {
        let (_, status) = self.machine.acknowledged.as_ref().expect("a status");
        let found = status.conditions.iter().flatten().find(|it| it.type_ == kind);
        found.map_or_else(|| "none".to_owned(), |it| it.reason.clone().unwrap_or_default())
    }
}

#[test]
fn an_ephemeral_container_looks_into_a_running_pod() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a", "image": "x"}]})));
    world.settle();
    world.took();
    world.change(|spec| {
        spec["ephemeralContainers"] = json!([{"name": "debug", "image": "y", "targetContainerName": "a"}]);
    });
    assert_eq!(world.took(), "create debug/0, start debug");
    assert_eq!(world.status["ephemeralContainerStatuses"][0]["name"], "debug");
    assert_eq!(world.condition("Ready"), "");
    // Its end is not the pod's, and it is not started again.
    world.exit("debug", 1);
    world.wait(60);
    assert_eq!(world.took(), "");
    let state = &world.status["ephemeralContainerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["exitCode"], 1);
    assert_eq!(world.status["phase"], "Running");
    // Nor does the pod wait for it.
    world.change(|spec| {
        let more = json!({"name": "more", "image": "y"});
        spec["ephemeralContainers"].as_array_mut().expect("a list").push(more);
    });
    assert_eq!(world.took(), "create more/0, start more");
    world.delete(5);
    world.settle();
    assert_eq!(world.took(), "stop a-0 5, stop more-0 5, unmount, delete");
}

fn sized(cpu: &str) -> serde_json::Value {
    json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}})
}

fn running(resources: serde_json::Value, policy: &str) -> World {
    let mut world =
        World::new(pod(json!({"containers": [{"name": "a", "image": "x", "resources": resources,
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]})));
    world.settle();
    world.took();
    world
}

#[test]
fn a_running_container_gets_another_size() {
    let mut world = running(sized("1"), "NotRequired");
    let held = |world: &World| world.status["containerStatuses"][0]["resources"]["limits"]["cpu"].clone();
    assert_eq!(held(&world), "1");
    world.change(|spec| spec["containers"][0]["resources"] = sized("2"));
    assert_eq!(world.took(), "resize a");
    assert_eq!(held(&world), "2");
    assert_eq!(world.status["containerStatuses"][0]["allocatedResources"]["cpu"], "2");
    assert_eq!(
        (world.condition("PodResizePending"), world.condition("PodResizeInProgress")),
        ("none".into(), "none".into())
    );
}

#[test]
fn a_size_that_the_node_does_not_have_is_waited_for_or_given_up() {
    let mut world = running(sized("1"), "NotRequired");
    world.sizes = Err(ResizeFailure::Deferred("full".into()));
    world.change(|spec| spec["containers"][0]["resources"] = sized("2"));
    assert_eq!(
        (world.took().as_str(), world.condition("PodResizePending").as_str()),
        ("resize a", "Deferred")
    );
    assert_eq!(world.condition("PodResizeInProgress"), "none");
    world.sizes = Ok(());
    world.wait(1);
    assert_eq!((world.took().as_str(), world.condition("PodResizePending").as_str()), ("resize a", "none"));
    world.sizes = Err(ResizeFailure::Infeasible("too much".into()));
    world.change(|spec| spec["containers"][0]["resources"] = sized("900"));
    world.wait(100);
    assert_eq!(
        (world.took().as_str(), world.condition("PodResizePending").as_str()),
        ("resize a", "Infeasible")
    );
    // Back to what it has: nothing is pending any more.
    world.change(|spec| spec["containers"][0]["resources"] = sized("2"));
    assert_eq!((world.took().as_str(), world.condition("PodResizePending").as_str()), ("", "none"));
}

#[test]
fn a_container_starts_anew_for_another_size_when_it_wants_so() {
    let mut world = running(sized("1"), "RestartContainer");
    world.change(|spec| spec["containers"][0]["resources"] = sized("2"));
    assert_eq!(world.took(), "resize a, stop a-0 30, create a/1, start a");
    assert_eq!(world.status["containerStatuses"][0]["resources"]["limits"]["cpu"], "2");
}
