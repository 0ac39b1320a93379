//! What a node and its containers use: rates from running totals, and the documents in which they are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::runtime::{ContainerId, ContainerStats, NodeStats};

/// Looks closer together than this give no rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// Keeps the last measures of a node and its containers.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Time between the last two looks.
    window: Duration,
    last: Option<(Duration, Look)>,
    rates: BTreeMap<Option<ContainerId>, u64>,
}

/// Running totals at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The moment.
    pub at: Timestamp,
    /// The whole node.
    pub node: NodeStats,
    /// Its containers.
    pub containers: Vec<ContainerStats>,
}

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.namespace` of the pod.
    pub namespace: String,
    /// `metadata.name` of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// `name` in the pod's spec.
    pub container: String,
}

/// Where containers belong; those that are not there are not told of.
pub type Owners = BTreeMap<ContainerId, Owner>;

// === impl Meter ===

impl Meter {
    /// Takes a look. `uptime` is a clock that only goes forward.
    pub fn look(&mut self, uptime: Duration, look: Look) {
        let rates = match &self.last {
            Some((before, last)) => {
                let window = uptime.saturating_sub(*before);
                if window < SHORTEST {
                    return;
                }
                self.window = window;
                let earlier: BTreeMap<_, _> = totals(last).collect();
                totals(&look)
                    .filter_map(|(id, total)| {
                        // A total that went back is that of something new under the same name.
                        let used = total.checked_sub(*earlier.get(&id)?)?;
                        let rate = used.as_nanos().saturating_mul(1_000_000_000) / window.as_nanos().max(1);
                        Some((id.cloned(), u64::try_from(rate).unwrap_or(u64::MAX)))
                    })
                    .collect()
            }
            None => BTreeMap::new(),
        };
        self.rates = rates;
        self.last = Some((uptime, look));
    }

    /// `/stats/summary`, as a kubelet words it, with the time over which rates were taken.
    pub fn summary(&self, node: &str, owners: &Owners) -> Value {
        let Some((_, look)) = &self.last else { return json!({"node": {"nodeName": node}, "pods": []}) };
        let at = look.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let stats = |id: Option<&ContainerId>, cpu: Duration, memory: u64| {
            let total = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
            let mut stats = json!({"cpu": {"time": at, "usageCoreNanoSeconds": total},
                "memory": {"time": at, "workingSetBytes": memory}});
            if let Some(rate) = self.rates.get(&id.cloned()) {
                stats["cpu"]["usageNanoCores"] = (*rate).into();
            }
            stats
        };
        let mut whole = stats(None, look.node.cpu_usage, look.node.memory_working_set_bytes);
        whole["nodeName"] = node.into();
        let mut pods: BTreeMap<&str, Value> = BTreeMap::new();
        for container in &look.containers {
            let Some(owner) = owners.get(&container.id) else { continue };
            let pod = pods.entry(&owner.uid).or_insert_with(|| {
                json!({"podRef": {"name": owner.pod, "namespace": owner.namespace, "uid": owner.uid},
                    "containers": []})
            });
            let mut told =
                stats(Some(&container.id), container.cpu_usage, container.memory_working_set_bytes);
            told["name"] = owner.container.clone().into();
            if let Some(containers) = pod["containers"].as_array_mut() {
                containers.push(told);
            }
        }
        json!({"windowSeconds": self.window.as_secs_f64(), "node": whole,
            "pods": pods.into_values().collect::<Vec<_>>()})
    }

    /// `/metrics/resource`, in the text format of Prometheus with a kubelet's names.
    pub fn resource_metrics(&self, owners: &Owners) -> String {
        let Some((_, look)) = &self.last else { return String::new() };
        let at = look.at.as_millisecond();
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, String)>| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(out, "{name}{labels} {value} {at}");
            }
        };
        let of_containers = |value: &dyn Fn(&ContainerStats) -> String| {
            let told = look.containers.iter().filter_map(|it| {
                let Owner { namespace, pod, container, .. } = owners.get(&it.id)?;
                let labels = format!("{{container={container:?},namespace={namespace:?},pod={pod:?}}}");
                Some((labels, value(it)))
            });
            told.collect::<Vec<_>>()
        };
        let seconds = |it: Duration| it.as_secs_f64().to_string();
        let cpu = "Cumulative cpu time consumed in core-seconds";
        let memory = "Current working set in bytes";
        let containers = of_containers(&|it| seconds(it.cpu_usage));
        family("container_cpu_usage_seconds_total", "counter", cpu, containers);
        let containers = of_containers(&|it| it.memory_working_set_bytes.to_string());
        family("container_memory_working_set_bytes", "gauge", memory, containers);
        let node = vec![(String::new(), seconds(look.node.cpu_usage))];
        family("node_cpu_usage_seconds_total", "counter", cpu, node);
        let node = vec![(String::new(), look.node.memory_working_set_bytes.to_string())];
        family("node_memory_working_set_bytes", "gauge", memory, node);
        out
    }
}

/// Processor time since the start, of the node (`None`) and of each container.
fn totals(look: &Look) -> impl Iterator<Item = (Option<&ContainerId>, Duration)> {
    let containers = look.containers.iter().map(|it| (Some(&it.id), it.cpu_usage));
    std::iter::once((None, look.node.cpu_usage)).chain(containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: &str, node: u64, containers: &[(&str, u64)]) -> Look {
        let container = |(id, cpu): &(&str, u64)| ContainerStats {
            id: ContainerId((*id).to_owned()),
            cpu_usage: Duration::from_millis(*cpu),
            memory_working_set_bytes: 4096,
        };
        Look {
            at: at.parse().expect("a time"),
            node: NodeStats { cpu_usage: Duration::from_millis(node), memory_working_set_bytes: 8192 },
            containers: containers.iter().map(container).collect(),
        }
    }

    fn owners(ids: &[&str]) -> Owners {
        let owner = |id: &&str| {
            let owner = Owner {
                namespace: "d".into(),
                pod: "p".into(),
                uid: "u".into(),
                container: (*id).to_owned(),
            };
            (ContainerId((*id).to_owned()), owner)
        };
        ids.iter().map(owner).collect()
    }

    #[test]
    fn rates_take_two_looks() {
        let mut meter = Meter::default();
        assert_eq!(meter.summary("n", &owners(&[])), json!({"node": {"nodeName": "n"}, "pods": []}));
        meter.look(Duration::from_secs(100), look("2026-01-01T00:00:00Z", 1000, &[("a", 10)]));
        let first = meter.summary("n", &owners(&["a"]));
        assert!(first["node"]["cpu"].get("usageNanoCores").is_none(), "{first}");
        // Too early for a second one.
        meter.look(Duration::from_millis(100_500), look("2026-01-01T00:00:01Z", 9000, &[]));
        meter.look(
            Duration::from_secs(110),
            look("2026-01-01T00:00:10Z", 6000, &[("a", 1010), ("b", 7), ("unknown", 1)]),
        );
        let told = meter.summary("n", &owners(&["a", "b"]));
        assert_eq!(
            (&told["windowSeconds"], &told["node"]["cpu"]["usageNanoCores"]),
            (&json!(10.0), &json!(500_000_000))
        );
        let containers = &told["pods"][0]["containers"];
        assert_eq!(containers.as_array().map(Vec::len), Some(2), "{told}");
        assert_eq!(containers[0]["cpu"]["usageNanoCores"], 100_000_000);
        assert!(containers[1]["cpu"].get("usageNanoCores").is_none(), "{told}");
        assert_eq!(containers[1]["memory"]["workingSetBytes"], 4096);
    }

    #[test]
    fn a_total_that_went_back_gives_no_rate() {
        let mut meter = Meter::default();
        meter.look(Duration::from_secs(1), look("2026-01-01T00:00:00Z", 1000, &[("a", 500)]));
        meter.look(Duration::from_secs(11), look("2026-01-01T00:00:10Z", 2000, &[("a", 20)]));
        let told = meter.summary("n", &owners(&["a"]));
        assert!(told["pods"][0]["containers"][0]["cpu"].get("usageNanoCores").is_none(), "{told}");
    }

    #[test]
    fn totals_are_told_to_prometheus() {
        let mut meter = Meter::default();
        meter.look(Duration::from_secs(1), look("2026-01-01T00:00:00Z", 1500, &[("a", 500)]));
        let text = meter.resource_metrics(&owners(&["a"]));
        let wanted = "container_cpu_usage_seconds_total{container=\"a\",namespace=\"d\",pod=\"p\"} 0.5 1767225600000\n";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("\nnode_memory_working_set_bytes 8192 1767225600000\n"), "{text}");
    }
}
