//! `top`: the processor time and memory that nodes and pods use.

use std::io::Write as _;

use api::quantity::Quantity;
use clap::{Args, Subcommand, ValueEnum};
use client::Error as ClientError;
use client::params::ListParams;
use serde_json::Value;

use super::error::{Error, Result, message};
use super::get::encoded;
use super::session::{Connection, Session, text_at};
use super::tabs;

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";

/// Show what nodes or pods use
#[derive(Args, Debug)]
pub struct Top {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand, Debug)]
enum Of {
    /// Show what nodes use
    #[command(visible_aliases = ["nodes", "no"])]
    Node(Node),
    /// Show what pods use
    #[command(visible_aliases = ["pods", "po"])]
    Pod(Pod),
}

#[derive(Args, Debug)]
struct Node {
    /// The node; without a name, all
    name: Option<String>,
    /// Show what the nodes have, not what pods may use of it
    #[arg(long)]
    show_capacity: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Pod {
    /// The pod; without a name, all
    name: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show each container
    #[arg(long)]
    containers: bool,
    /// Add a line with the sum
    #[arg(long)]
    sum: bool,
    /// Only pods with these fields
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// What uses most goes first
    #[arg(long, value_name = "WHAT")]
    sort_by: Option<SortBy>,
    /// No titles
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum SortBy {
    Cpu,
    Memory,
}

/// Thousandths of a core, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu: i64,
    memory: i64,
}

/// Runs `top`.
pub async fn run(arguments: &Top) -> Result<()> {
    match &arguments.of {
        Of::Node(arguments) => nodes(arguments).await,
        Of::Pod(arguments) => pods(arguments).await,
    }
}

async fn nodes(arguments: &Node) -> Result<()> {
    let common = &arguments.common;
    let session = Session::open(&common.connection, "kubectl").await?;
    let measured = common.measured(&session, "nodes", arguments.name.as_deref(), "").await?;
    if measured.is_empty() {
        return message("metrics not available yet");
    }
    let known = session.client.list_page(&node_resource(), None, &ListParams::all()).await;
    let known = known.map_err(|error| session.refused(error.into()))?;
    let from = if arguments.show_capacity { "/status/capacity" } else { "/status/allocatable" };
    let room = |name: &str| {
        let nodes = known.get("items").and_then(Value::as_array);
        let node = nodes.into_iter().flatten().find(|node| text_at(node, "/metadata/name") == name);
        node.and_then(|node| node.pointer(from)).map(Usage::of)
    };
    let mut rows: Vec<(Usage, Vec<String>)> = measured
        .iter()
        .map(|node| {
            let name = text_at(node, "/metadata/name");
            let usage = node.get("usage").map(Usage::of).unwrap_or_default();
            (usage, node_row(name, usage, room(name)))
        })
        .collect();
    common.sort(&mut rows);
    common.print(&["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], rows)
}

fn node_resource() -> client::core::object::ResourceType {
    client::core::object::ResourceType::new("", "v1", "Node", "nodes", false)
}

fn node_row(name: &str, usage: Usage, room: Option<Usage>) -> Vec<String> {
    let share = |used: i64, of: i64| match of {
        0 => "<unknown>".to_owned(),
        of => format!("{}%", i128::from(used) * 100 / i128::from(of)),
    };
    let room = room.unwrap_or_default();
    vec![
        name.to_owned(),
        usage.cpu(),
        share(usage.cpu, room.cpu),
        usage.memory(),
        share(usage.memory, room.memory),
    ]
}

async fn pods(arguments: &Pod) -> Result<()> {
    let common = &arguments.common;
    let session = Session::open(&common.connection, "kubectl").await?;
    let all = arguments.all_namespaces && arguments.name.is_none();
    let resource = match all {
        true => "pods".to_owned(),
        false => format!("namespaces/{}/pods", encoded(&session.namespace)),
    };
    let fields = arguments.field_selector.as_deref().unwrap_or_default();
    let measured = common.measured(&session, &resource, arguments.name.as_deref(), fields).await?;
    if measured.is_empty() {
        let place = if all { "cluster".to_owned() } else { format!("{} namespace", session.namespace) };
        eprintln!("No resources found in {place}.");
        return Ok(());
    }
    let mut rows: Vec<(Usage, Vec<String>)> =
        measured.iter().flat_map(|pod| pod_rows(pod, all, arguments.containers)).collect();
    common.sort(&mut rows);
    let before = usize::from(all) + 1 + usize::from(arguments.containers);
    if arguments.sum {
        let total = rows.iter().fold(Usage::default(), |sum, (usage, _)| sum.plus(*usage));
        let blanks = vec![String::new(); before];
        let rule = [blanks.clone(), vec!["________".into(), "________".into()]].concat();
        let sum = [blanks, vec![total.cpu(), total.memory()]].concat();
        rows.extend([(total, rule), (total, sum)]);
    }
    let mut titles = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
    if arguments.containers {
        titles = vec!["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"];
    }
    if all {
        titles.insert(0, "NAMESPACE");
    }
    common.print(&titles, rows)
}

/// A pod's row, or one for each of its containers.
fn pod_rows(pod: &Value, with_namespace: bool, each: bool) -> Vec<(Usage, Vec<String>)> {
    let mut place = vec![text_at(pod, "/metadata/name").to_owned()];
    if with_namespace {
        place.insert(0, text_at(pod, "/metadata/namespace").to_owned());
    }
    let containers = pod.get("containers").and_then(Value::as_array);
    let used: Vec<(&str, Usage)> = containers
        .into_iter()
        .flatten()
        .map(|it| (text_at(it, "/name"), it.get("usage").map(Usage::of).unwrap_or_default()))
        .collect();
    let row = |name: Option<&str>, usage: Usage| {
        let cells = place.iter().cloned().chain(name.map(str::to_owned));
        (usage, cells.chain([usage.cpu(), usage.memory()]).collect())
    };
    if each {
        return used.into_iter().map(|(name, usage)| row(Some(name), usage)).collect();
    }
    vec![row(None, used.iter().fold(Usage::default(), |sum, (_, usage)| sum.plus(*usage)))]
}

// === impl Common ===

impl Common {
    async fn measured(
        &self,
        session: &Session,
        resource: &str,
        name: Option<&str>,
        fields: &str,
    ) -> Result<Vec<Value>> {
        let labels = self.selector.as_deref().unwrap_or_default();
        if name.is_some() && !(labels.is_empty() && fields.is_empty()) {
            return message("only one of NAME or selector can be provided");
        }
        let path = match name {
            Some(name) => format!("{GROUP}/{resource}/{}", encoded(name)),
            None => format!(
                "{GROUP}/{resource}?labelSelector={}&fieldSelector={}",
                encoded(labels),
                encoded(fields)
            ),
        };
        let answer: Result<Value, ClientError> = session.client.get_path(&path).await;
        let mut answer = answer.map_err(|error| session.refused(Error::Server(error)))?;
        Ok(match (name, answer.get_mut("items").map(Value::take)) {
            (Some(_), _) => vec![answer],
            (None, Some(Value::Array(items))) => items,
            _ => Vec::new(),
        })
    }

    fn sort(&self, rows: &mut [(Usage, Vec<String>)]) {
        match self.sort_by {
            Some(SortBy::Cpu) => rows.sort_by_key(|(usage, _)| std::cmp::Reverse(usage.cpu)),
            Some(SortBy::Memory) => rows.sort_by_key(|(usage, _)| std::cmp::Reverse(usage.memory)),
            None => rows.sort_by(|(_, a), (_, b)| a.cmp(b)),
        }
    }

    fn print(&self, titles: &[&str], rows: Vec<(Usage, Vec<String>)>) -> Result<()> {
        let mut lines: Vec<String> = Vec::new();
        if !self.no_headers {
            lines.push(titles.join("\t"));
        }
        lines.extend(rows.into_iter().map(|(_, cells)| cells.join("\t")));
        let text: String = lines.into_iter().map(|line| line + "\t\n").collect();
        std::io::stdout().write_all(tabs::align(&text, tabs::TABLE).as_bytes())?;
        Ok(())
    }
}

// === impl Usage ===

impl Usage {
    fn of(list: &Value) -> Usage {
        let amount = |name: &str| list.get(name).and_then(Value::as_str)?.parse::<Quantity>().ok();
        Usage {
            cpu: amount("cpu").map_or(0, |cpu| cpu.milli_value()),
            memory: amount("memory").map_or(0, |memory| memory.value()),
        }
    }

    fn plus(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    fn cpu(self) -> String {
        format!("{}m", self.cpu)
    }

    fn memory(self) -> String {
        format!("{}Mi", self.memory / (1024 * 1024))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_sums_of_their_containers() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "containers": [
            {"name": "a", "usage": {"cpu": "1500000n", "memory": "2048Ki"}},
            {"name": "b", "usage": {"cpu": "250m", "memory": "3Mi"}}]});
        let cells = |rows: Vec<(Usage, Vec<String>)>| -> Vec<String> {
            rows.into_iter().map(|(_, cells)| cells.join(" ")).collect()
        };
        assert_eq!(cells(pod_rows(&pod, false, false)), ["p 252m 5Mi"]);
        assert_eq!(cells(pod_rows(&pod, true, true)), ["d p a 2m 2Mi", "d p b 250m 3Mi"]);
    }

    #[test]
    fn shares_are_of_what_the_node_has() {
        let room = Usage::of(&json!({"cpu": "2", "memory": "4Gi"}));
        let usage = Usage { cpu: 500, memory: 1 << 30 };
        assert_eq!(node_row("n", usage, Some(room)), ["n", "500m", "25%", "1024Mi", "25%"]);
        assert_eq!(node_row("n", usage, None)[2], "<unknown>");
    }
}
