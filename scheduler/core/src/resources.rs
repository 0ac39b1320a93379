//! Amounts of resources: what a node offers, what a pod asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What a container without a CPU request is taken to need when nodes are scored, in thousandths.
const DEFAULT_CPU: i64 = 100;
/// What a container without a memory request is taken to need when nodes are scored, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local storage.
    pub storage: i64,
    /// Everything else, devices and huge pages for example.
    pub extended: BTreeMap<Arc<str>, i64>,
}

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// As written: this must fit.
    pub exact: Amounts,
    /// CPU with a default for containers that do not say.
    pub scored_cpu: i64,
    /// Memory with a default for containers that do not say.
    pub scored_memory: i64,
}

// === impl Amounts ===

impl Amounts {
    /// Reads a resource list. `pods` is not among the amounts; what is not a quantity counts as nothing.
    pub fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let quantity = text.0.parse::<Quantity>().unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => amounts.cpu = quantity.milli_value(),
                "memory" => amounts.memory = quantity.value(),
                "ephemeral-storage" => amounts.storage = quantity.value(),
                "pods" => {}
                _ => {
                    amounts.extended.insert(Arc::from(name.as_str()), quantity.value());
                }
            }
        }
        amounts
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.extended.retain(|_, amount| *amount != 0);
    }

    /// Raises each amount to the other's.
    pub fn raise(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.storage = with(self.storage, other.storage);
        for (name, amount) in &other.extended {
            let mine = self.extended.entry(Arc::clone(name)).or_insert(0);
            *mine = with(*mine, *amount);
        }
    }
}

// === impl Requests ===

impl Requests {
    /// What a pod asks for: its containers and sidecars together, or its largest init step if that is more; plus overhead.
    pub fn of(spec: &PodSpec) -> Self {
        let exact = total(spec, |container| Amounts::read(requests(container)));
        let scored = total(spec, |container| {
            let list = requests(container);
            let mut amounts = Amounts::read(list);
            let says = |name: &str| list.is_some_and(|list| list.contains_key(name));
            if !says("cpu") {
                amounts.cpu = DEFAULT_CPU;
            }
            if !says("memory") {
                amounts.memory = DEFAULT_MEMORY;
            }
            amounts
        });
        Self { exact, scored_cpu: scored.cpu, scored_memory: scored.memory }
    }
}

fn requests(container: &Container) -> Option<&BTreeMap<String, Text>> {
    container.resources.as_ref()?.requests.as_ref()
}

fn total(spec: &PodSpec, amounts: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&amounts(container));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let own = amounts(container);
        let mut step = sidecars.clone();
        step.add(&own);
        starting.raise(&step);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
        }
    }
    running.raise(&starting);
    if let Some(list) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let whole = Amounts::read(Some(list));
        if list.contains_key("cpu") {
            running.cpu = whole.cpu;
        }
        if list.contains_key("memory") {
            running.memory = whole.memory;
        }
    }
    running.add(&Amounts::read(spec.overhead.as_ref()));
    running
}
