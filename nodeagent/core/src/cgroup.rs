//! Quality of service and cgroup settings from requests and limits.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod;
use crate::runtime::{QosClass, Resources};

const PERIOD_US: u64 = 100_000;
const MIN_QUOTA_US: i64 = 1_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

type List = Option<BTreeMap<String, ApiQuantity>>;

/// The amount of a resource in a list of requests or limits.
pub fn amount(list: &List, name: &str) -> Option<Quantity> {
    list.as_ref()?.get(name)?.0.parse().ok()
}

fn limits(container: &Container) -> &List {
    container.resources.as_ref().map_or(&None, |it| &it.limits)
}

fn requests(container: &Container) -> &List {
    container.resources.as_ref().map_or(&None, |it| &it.requests)
}

/// The pod's quality of service class.
pub fn qos_class(pod: &Pod) -> QosClass {
    let positive = |list: &List, name| amount(list, name).filter(|it| !it.is_zero());
    let mut any = false;
    let mut guaranteed = true;
    for container in pod::all_containers(pod) {
        for name in ["cpu", "memory"] {
            let limit = positive(limits(container), name);
            let request = positive(requests(container), name);
            any |= limit.is_some() || request.is_some();
            guaranteed &= match (&limit, &request) {
                (Some(limit), Some(request)) => limit == request,
                (Some(_), None) => true,
                _ => false,
            };
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// As `status.qosClass` spells it.
pub fn qos_name(class: QosClass) -> &'static str {
    match class {
        QosClass::Guaranteed => "Guaranteed",
        QosClass::Burstable => "Burstable",
        QosClass::BestEffort => "BestEffort",
    }
}

/// Shares for a request in thousandths of a core.
pub fn cpu_shares(milli: i64) -> u64 {
    let milli = u64::try_from(milli).unwrap_or(0);
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota in microseconds per period of 100 ms for a limit in thousandths of a core.
pub fn cpu_quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(100)).max(MIN_QUOTA_US)
}

/// What one container gets.
pub fn container(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
    pids_limit: Option<i64>,
) -> Resources {
    let limit_cpu = amount(limits(container), "cpu").filter(|it| !it.is_zero());
    let limit_memory = amount(limits(container), "memory").filter(|it| !it.is_zero());
    let request_cpu = amount(requests(container), "cpu").or(limit_cpu);
    let request_memory = amount(requests(container), "memory").or(limit_memory);
    let adjust = oom_score_adj(
        qos_class(pod),
        pod::spec(pod).priority_class_name.as_deref() == Some("system-node-critical"),
        request_memory.map_or(0, |it| it.value()),
        memory_capacity,
    );
    Resources {
        cpu_shares: Some(cpu_shares(request_cpu.map_or(0, |it| it.milli_value()))),
        cpu_quota_us: limit_cpu.as_ref().map(|it| cpu_quota_us(it.milli_value())),
        cpu_period_us: limit_cpu.as_ref().map(|_| PERIOD_US),
        memory_limit_bytes: limit_memory.map(|it| it.value()),
        pids_limit,
        oom_score_adj: Some(adjust),
    }
}

/// What the pod as a whole gets: the sum of its containers, where each has a limit.
pub fn whole_pod(pod: &Pod, pids_limit: Option<i64>) -> Resources {
    let apps = &pod::spec(pod).containers;
    let sidecars = || pod::init_containers(pod).iter().filter(|it| pod::is_sidecar(it));
    let steady = || apps.iter().chain(sidecars());
    let inits = || pod::init_containers(pod).iter().filter(|it| !pod::is_sidecar(it));
    let pick = |name: &'static str, milli: bool| {
        move |container: &Container| {
            let limit = amount(limits(container), name).filter(|it| !it.is_zero())?;
            Some(if milli { limit.milli_value() } else { limit.value() })
        }
    };
    let bound = |name, milli| {
        let sum: Option<i64> =
            steady().map(pick(name, milli)).try_fold(0_i64, |sum, it| Some(sum.saturating_add(it?)));
        let peak: Option<i64> =
            inits().map(pick(name, milli)).try_fold(0_i64, |most, it| Some(most.max(it?)));
        Some(sum?.max(peak?))
    };
    let request = |container: &Container| {
        amount(requests(container), "cpu")
            .or_else(|| amount(limits(container), "cpu"))
            .map_or(0, |it| it.milli_value())
    };
    let requested = steady().map(request).sum::<i64>().max(inits().map(request).max().unwrap_or(0));
    let cpu: Option<i64> = bound("cpu", true);
    Resources {
        cpu_shares: Some(cpu_shares(requested)),
        cpu_quota_us: cpu.map(cpu_quota_us),
        cpu_period_us: cpu.map(|_| PERIOD_US),
        memory_limit_bytes: bound("memory", false),
        pids_limit,
        oom_score_adj: None,
    }
}

/// `oom_score_adj` of a container.
pub fn oom_score_adj(class: QosClass, node_critical: bool, memory_request: i64, memory_capacity: i64) -> i32 {
    if node_critical {
        return -997;
    }
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = i128::from(memory_request) * 1000 / i128::from(memory_capacity.max(1));
            let score = i32::try_from(1000 - share).unwrap_or(3);
            if score < 3 { 3 } else { score.min(999) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &str) -> Pod {
        let resources: serde_json::Value = serde_json::from_str(resources).expect("JSON");
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"containers": [{"name": "c", "resources": resources}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn classes_and_settings() {
        let check = |resources: &str, class: QosClass, shares: u64, quota: Option<i64>, oom: i32| {
            let pod = pod(resources);
            assert_eq!(qos_class(&pod), class, "{resources}");
            let settings = container(&pod, &pod::spec(&pod).containers[0], 1_000_000_000, None);
            assert_eq!((settings.cpu_shares, settings.cpu_quota_us), (Some(shares), quota), "{resources}");
            assert_eq!(settings.oom_score_adj, Some(oom), "{resources}");
        };
        check("{}", QosClass::BestEffort, 2, None, 1000);
        check(r#"{"requests":{"cpu":"100m"}}"#, QosClass::Burstable, 102, None, 999);
        check(r#"{"limits":{"cpu":"500m","memory":"100M"}}"#, QosClass::Guaranteed, 512, Some(50_000), -997);
        check(
            r#"{"limits":{"cpu":"1m","memory":"200M"},"requests":{"memory":"100M"}}"#,
            QosClass::Burstable,
            2,
            Some(1000),
            900,
        );
    }
}
