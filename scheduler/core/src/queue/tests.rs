//! The queue in virtual time.

use k8s_openapi::api::core::v1::Pod;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    with(name, priority, "")
}

fn with(name: &str, priority: i32, label: &str) -> Arc<PodInfo> {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"l": label}},
        "spec": {"priority": priority, "containers": []},
    }))
    .expect("a pod");
    Arc::new(PodInfo::read(&pod))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("d", name)
}

fn pop(queue: &mut Queue, now: Moment) -> Option<String> {
    queue.pop(now).map(|pod| pod.key.name.to_string())
}

#[test]
fn priority_then_age() {
    let mut queue = Queue::new();
    for (name, priority) in [("a", 0), ("b", 0), ("c", 10), ("d", -1)] {
        queue.set(pod(name, priority), Moment::ZERO);
    }
    queue.set(pod("d", 5), Moment::ZERO);
    let order: Vec<String> = std::iter::from_fn(|| pop(&mut queue, Moment::ZERO)).collect();
    assert_eq!(order, ["c", "d", "a", "b"]);
}

#[test]
fn an_unschedulable_pod_waits_for_a_change_that_may_help_and_for_its_backoff() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    assert_eq!(pop(&mut queue, Moment::ZERO).as_deref(), Some("a"));
    queue.unschedulable(&key("a"), "a", Causes::RESOURCES, Moment::ZERO);
    queue.wake_all(Causes::TAINT, 2 * SECOND, |_, _| true);
    queue.wake_all(Causes::RESOURCES, 2 * SECOND, |_, _| false);
    assert_eq!(queue.depths(), (0, 0, 1));
    queue.wake_all(Causes::RESOURCES, SECOND / 2, |_, _| true);
    assert_eq!(queue.depths(), (0, 1, 0));
    assert_eq!(queue.poll_timeout(), Some(SECOND));
    assert_eq!(pop(&mut queue, SECOND / 2), None);
    assert_eq!(pop(&mut queue, SECOND).as_deref(), Some("a"));
}

/// A node that is opened again keeps its taint for a moment: the pod failed for the one, and waits for the other.
#[test]
fn what_was_hidden_behind_the_cause_of_a_failure_is_waited_for() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    assert_eq!(pop(&mut queue, Moment::ZERO).as_deref(), Some("a"));
    queue.unschedulable(&key("a"), "a", Causes::UNSCHEDULABLE, Moment::ZERO);
    queue.wake_all(Causes::UNSCHEDULABLE, 2 * SECOND, |_, _| false);
    assert_eq!(queue.depths(), (0, 0, 1));
    queue.wake_all(Causes::TAINT, 2 * SECOND, |_, _| true);
    assert_eq!(pop(&mut queue, 2 * SECOND).as_deref(), Some("a"));
}

#[test]
fn failures_back_off_from_one_to_ten_seconds() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    let mut now = Moment::ZERO;
    let mut delays = Vec::new();
    for _ in 0..6 {
        assert!(pop(&mut queue, now).is_some());
        queue.failed(&key("a"), "a", now);
        let at = queue.poll_timeout().expect("it waits");
        delays.push((at - now).as_secs());
        now = at;
    }
    assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn nothing_waits_longer_than_five_minutes() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    queue.pop(Moment::ZERO);
    queue.unschedulable(&key("a"), "a", Causes::TAINT, Moment::ZERO);
    assert_eq!(queue.poll_timeout(), Some(FLUSH));
    assert_eq!(pop(&mut queue, FLUSH - SECOND), None);
    assert_eq!(pop(&mut queue, FLUSH).as_deref(), Some("a"));
}

#[test]
fn a_change_of_the_pod_itself_wakes_it_but_its_status_does_not() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    queue.pop(Moment::ZERO);
    queue.unschedulable(&key("a"), "a", Causes::NODE_AFFINITY, Moment::ZERO);
    queue.set(pod("a", 0), 5 * SECOND);
    assert_eq!(queue.depths(), (0, 0, 1));
    queue.set(with("a", 0, "new"), 5 * SECOND);
    assert_eq!(queue.depths(), (1, 0, 0));
}

#[test]
fn a_gated_pod_waits_until_its_gates_are_gone() {
    let mut gated = (*pod("a", 0)).clone();
    gated.gated = true;
    let mut queue = Queue::new();
    queue.set(Arc::new(gated), Moment::ZERO);
    assert_eq!(pop(&mut queue, Moment::ZERO), None);
    queue.set(pod("a", 0), Moment::ZERO);
    assert_eq!(pop(&mut queue, Moment::ZERO).as_deref(), Some("a"));
}

#[test]
fn outcomes_of_an_older_pod_of_the_same_name_do_not_count() {
    let mut queue = Queue::new();
    queue.set(pod("a", 0), Moment::ZERO);
    queue.pop(Moment::ZERO);
    let mut next = (*pod("a", 0)).clone();
    next.uid = "a2".into();
    queue.set(Arc::new(next), Moment::ZERO);
    queue.bound(&key("a"), "a");
    queue.failed(&key("a"), "a", Moment::ZERO);
    assert_eq!(queue.pop(Moment::ZERO).map(|pod| pod.uid.clone()).as_deref(), Some("a2"));
    queue.bound(&key("a"), "a2");
    assert_eq!(queue.depths(), (0, 0, 0));
    assert_eq!(queue.poll_timeout(), None);
}
