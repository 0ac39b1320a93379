//! People with kubectl: they make, scale, roll out, roll back and delete workloads, and label, taint and cordon nodes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use apiserver_core::User;
use client_core::error::Error;
use client_core::wire::JSON;
use http::Method;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope, Sim};
use crate::network::Place;

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const NAMES: [&str; 4] = ["web", "api", "cart", "search"];
const NAMESPACES: [&str; 3] = ["default", "shop", "blog"];

/// The people of a cluster: they know what the others do.
pub struct People {
    sim: Sim,
    caller: Caller,
    nodes: Vec<String>,
    /// Thousandths of a core that all workloads together may ask for.
    budget: i64,
    /// What each deployment may grow to, in thousandths of a core.
    spent: RefCell<BTreeMap<String, i64>>,
    /// What they do, as often as it is named.
    habits: Vec<Habit>,
    done: Cell<u64>,
}

/// What people do.
#[derive(Clone, Copy, Debug)]
enum Habit {
    Create,
    Scale,
    RollOut,
    Delete,
    DaemonSet,
    Service,
    ConfigMap,
    Namespace,
    Taint,
    Label,
    DeletePod,
}

/// What people do, and how often beside each other.
const HABITS: [(Habit, usize); 11] = [
    (Habit::Create, 4),
    (Habit::Scale, 3),
    (Habit::RollOut, 2),
    (Habit::Delete, 1),
    (Habit::DaemonSet, 1),
    (Habit::Service, 2),
    (Habit::ConfigMap, 1),
    (Habit::Namespace, 1),
    (Habit::Taint, 1),
    (Habit::Label, 1),
    (Habit::DeletePod, 3),
];

/// Starts `count` people.
pub fn start(cluster: &Rc<Cluster>, scope: Scope, count: u64, nodes: Vec<String>, budget: i64) -> Rc<People> {
    let user = User::from_certificate("admin", &["system:masters".into()]);
    let people = Rc::new(People {
        sim: cluster.sim.clone(),
        caller: Caller::new(cluster, Place::Host(500), user),
        nodes,
        budget,
        spent: RefCell::default(),
        habits: habits(&cluster.sim),
        done: Cell::new(0),
    });
    for number in 0..count {
        let (people, caller) = (people.clone(), people.caller.clone());
        let pace = cluster.sim.between(300 * MS, 3 * SECOND);
        cluster.sim.spawn(scope, async move {
            people.sim.note(format_args!("person {number} begins"));
            loop {
                people.sim.sleep(people.sim.between(pace / 2, pace * 2)).await;
                if people.act(&caller).await.is_ok() {
                    people.done.set(people.done.get() + 1);
                }
            }
        });
    }
    people
}

/// In some runs people do little else than some few things.
fn habits(sim: &Sim) -> Vec<Habit> {
    let mut habits = Vec::new();
    let fond = sim.chance(0.5);
    for (habit, times) in HABITS {
        let times = if fond && sim.chance(0.2) { times * 6 } else { times };
        habits.extend(std::iter::repeat_n(habit, times));
    }
    habits
}

// === impl People ===

impl People {
    /// How much was done.
    pub fn done(&self) -> u64 {
        self.done.get()
    }

    fn pick<'a>(&self, from: &'a [&'static str]) -> &'a str {
        from[self.sim.index(from.len())]
    }

    async fn act(&self, caller: &Caller) -> Result<(), Error> {
        let (namespace, name) = (self.pick(&NAMESPACES), self.pick(&NAMES));
        let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let deployment = format!("{deployments}/{name}");
        match self.habits[self.sim.index(self.habits.len())] {
            Habit::Create => self.create_deployment(caller, &deployments, name).await,
            Habit::Scale => self.scale(caller, &deployment).await,
            Habit::RollOut => {
                let image = format!("{name}:v{}", self.sim.between(1, 5));
                let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}});
                caller.patch(&deployment, STRATEGIC, &body).await.map(drop)
            }
            Habit::Delete => self.delete_deployment(caller, &deployment).await,
            Habit::DaemonSet => self.daemon_set(caller, namespace).await,
            Habit::Service => self.service(caller, namespace, name).await,
            Habit::ConfigMap => self.config_map(caller, namespace).await,
            Habit::Namespace => self.namespace(caller, namespace).await,
            Habit::Taint => self.taint(caller).await,
            Habit::Label => {
                let body = json!({"metadata": {"labels": {"tier": format!("t{}", self.sim.between(0, 4))}}});
                caller.patch(&deployment, MERGE, &body).await.map(drop)
            }
            Habit::DeletePod => self.delete_pod(caller, namespace).await,
        }
    }

    async fn create_deployment(&self, caller: &Caller, path: &str, name: &str) -> Result<(), Error> {
        let (replicas, cpu) = (self.sim.between(0, 5), self.sim.between(1, 7).cast_signed() * 100);
        let key = format!("{path}/{name}");
        if !self.may_spend(&key, cpu * 5) {
            return Ok(());
        }
        let strategy = match self.sim.between(0, 4) {
            0 => json!({"type": "Recreate"}),
            1 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
            2 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
            _ => Value::Null,
        };
        let document = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "strategy": strategy,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "terminationGracePeriodSeconds": self.sim.between(1, 10),
                        "containers": [{"name": "app", "image": format!("{name}:v1"),
                            "resources": {"requests": {"cpu": format!("{cpu}m")}}}],
                    },
                },
            },
        });
        let made = caller.document(Method::POST, path, &document).await;
        if made.as_ref().is_err_and(|failure| !failure.is_outcome_unknown() && !failure.is_already_exists()) {
            self.spent.borrow_mut().remove(&key);
        }
        made.map(drop)
    }

    /// Whether there is room for a deployment that may ask for so much.
    fn may_spend(&self, key: &str, most: i64) -> bool {
        let mut spent = self.spent.borrow_mut();
        if spent.contains_key(key) {
            return false;
        }
        let fits = spent.values().sum::<i64>() + most <= self.budget;
        if fits {
            spent.insert(key.to_owned(), most);
        }
        fits
    }

    async fn scale(&self, caller: &Caller, path: &str) -> Result<(), Error> {
        let body = json!({"spec": {"replicas": self.sim.between(0, 6)}});
        caller.patch(&format!("{path}/scale"), MERGE, &body).await.map(drop)
    }

    async fn delete_deployment(&self, caller: &Caller, path: &str) -> Result<(), Error> {
        let policy = self.pick(&["Background", "Foreground"]);
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        let body = options.to_string().into();
        caller.send(Method::DELETE, path, JSON, body).await?;
        // Its pods are on their way out, and the next one of its name gets an account of its own.
        self.spent.borrow_mut().remove(path);
        Ok(())
    }

    async fn daemon_set(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
        let one = format!("{path}/logs");
        match self.sim.between(0, 4) {
            0 => caller.send(Method::DELETE, &one, JSON, "{}".into()).await.map(drop),
            1 => {
                let image = format!("logs:v{}", self.sim.between(1, 5));
                let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}});
                caller.patch(&one, STRATEGIC, &body).await.map(drop)
            }
            _ => {
                let document = json!({
                    "apiVersion": "apps/v1", "kind": "DaemonSet",
                    "metadata": {"name": "logs"},
                    "spec": {
                        "selector": {"matchLabels": {"app": "logs"}},
                        "template": {
                            "metadata": {"labels": {"app": "logs"}},
                            "spec": {"terminationGracePeriodSeconds": 2,
                                "containers": [{"name": "app", "image": "logs:v1"}]},
                        },
                    },
                });
                caller.document(Method::POST, &path, &document).await.map(drop)
            }
        }
    }

    async fn service(&self, caller: &Caller, namespace: &str, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/namespaces/{namespace}/services");
        if self.sim.chance(0.3) {
            let one = format!("{path}/{name}");
            return caller.send(Method::DELETE, &one, JSON, "{}".into()).await.map(drop);
        }
        let kind = self.pick(&["ClusterIP", "ClusterIP", "NodePort"]);
        let document = |name: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name},
                "spec": {"type": kind, "selector": {"app": name}, "ports": [{"port": 80}]},
            })
        };
        if self.sim.chance(0.7) {
            return caller.document(Method::POST, &path, &document(name)).await.map(drop);
        }
        // Two people want the same address at the same time.
        let address = format!("10.96.0.{}", self.sim.between(40, 44));
        let (mut one, mut other) = (document(name), document(self.pick(&NAMES)));
        one["spec"]["clusterIP"] = json!(address);
        other["spec"]["clusterIP"] = json!(address);
        let elsewhere = format!("/api/v1/namespaces/{}/services", self.pick(&NAMESPACES));
        let first = caller.document(Method::POST, &path, &one);
        let (made, _) = futures::future::join(first, caller.document(Method::POST, &elsewhere, &other)).await;
        made.map(drop)
    }

    async fn config_map(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let value = self.sim.between(0, 1000).to_string();
        let name = self.pick(&["settings", "flags"]);
        let document = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}});
        match caller.document(Method::POST, &path, &document).await {
            Err(failure) if failure.is_already_exists() => {
                let one = format!("{path}/{name}");
                if self.sim.chance(0.3) {
                    return caller.send(Method::DELETE, &one, JSON, "{}".into()).await.map(drop);
                }
                caller.patch(&one, MERGE, &json!({"data": {"k": value}})).await.map(drop)
            }
            made => made.map(drop),
        }
    }

    async fn namespace(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        if namespace != "default" && self.sim.chance(0.35) {
            let path = format!("/api/v1/namespaces/{namespace}");
            caller.send(Method::DELETE, &path, JSON, "{}".into()).await?;
            let inside = format!("/namespaces/{namespace}/");
            self.spent.borrow_mut().retain(|key, _| !key.contains(&inside));
            return Ok(());
        }
        let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        caller.document(Method::POST, "/api/v1/namespaces", &document).await.map(drop)
    }

    async fn taint(&self, caller: &Caller) -> Result<(), Error> {
        let node = &self.nodes[self.sim.index(self.nodes.len())];
        let path = format!("/api/v1/nodes/{node}");
        let effect = self.pick(&["NoSchedule", "NoExecute"]);
        let body = match self.sim.between(0, 4) {
            0 => json!({"spec": {"unschedulable": true}}),
            1 => json!({"spec": {"taints": [{"key": "maintenance", "effect": effect}]}}),
            2 => json!({"metadata": {"labels": {"disk": self.pick(&["ssd", "hdd"])}}}),
            _ => json!({"spec": {"unschedulable": null,
                "taints": [{"key": "maintenance", "$patch": "delete"}]}}),
        };
        caller.patch(&path, STRATEGIC, &body).await.map(drop)
    }

    async fn delete_pod(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let list = caller.get(&path).await?;
        let names: Vec<&str> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it["metadata"]["name"].as_str())
            .collect();
        let Some(name) = names.get(self.sim.index(names.len().max(1))) else { return Ok(()) };
        let options = match self.sim.chance(0.3) {
            true => json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}),
            false => json!({}),
        };
        let one = format!("{path}/{name}");
        caller.send(Method::DELETE, &one, JSON, options.to_string().into()).await.map(drop)
    }

    /// Takes all taints and cordons off again, as long as it takes. Returns when that is done.
    pub async fn tidy_up(self: Rc<Self>) {
        for node in &self.nodes {
            let path = format!("/api/v1/nodes/{node}");
            let body = json!({"spec": {"unschedulable": null,
                "taints": [{"key": "maintenance", "$patch": "delete"}]}});
            while let Err(failure) = self.caller.patch(&path, STRATEGIC, &body).await {
                if failure.is_not_found() {
                    break;
                }
                self.sim.sleep(SECOND).await;
            }
        }
    }
}
