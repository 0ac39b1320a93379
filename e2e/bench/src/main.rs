//! Load tools: `cargo run --release -p bench -- <what>` prints a table, or JSON with `--json`.

mod api;
mod ceiling;
mod customs;
mod load;
mod nodes;
mod process;
mod report;
mod store_bench;
mod target;
mod watchers;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// The product's allocator: members of a store and the ceiling have what a server has.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures Orlop. Build the release binary first: `cargo build --release`.
#[derive(Parser)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Port of the clusters that are started.
    #[arg(long, global = true, default_value_t = 16443)]
    port: u16,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The bare server that answers with constant bytes.
    Ceiling(Requests),
    /// GET, LIST, create, delete and watch fan-out, beside the ceiling.
    Api(Requests),
    /// Time to ready on an existing data directory; memory and CPU of an idle cluster of three nodes.
    Startup,
    /// One pod created → Running; 30 at once. Needs root.
    Pods,
    /// Pods placed on hollow nodes.
    Schedule {
        /// Hollow nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Pods.
        #[arg(long, default_value_t = 5000)]
        pods: u64,
    },
    /// Memory of custom resources, and how soon a definition is ready.
    Customs {
        /// Definitions.
        #[arg(long, default_value_t = 100)]
        definitions: usize,
        /// Objects of each.
        #[arg(long, default_value_t = 100)]
        objects: usize,
    },
    /// Durable writes and linearizable reads of three members of the store, beside three of etcd.
    Store {
        /// Seconds of each run.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Only the loads whose name holds this, such as "writes of 1024 B, 64".
        #[arg(long, default_value = "")]
        only: String,
        /// How often each load is run, both in turn; the middle one counts.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
    },
    /// A large state in three members of the store: memory, restart, and catching up by snapshot while serving.
    StoreSize {
        /// Objects of 1 KiB.
        #[arg(long, default_value_t = 1_000_000)]
        objects: u64,
        /// Measures etcd beside it.
        #[arg(long)]
        with_etcd: bool,
    },
    /// kill -9 of the store's leader, again and again: time to the next acknowledged write.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 50)]
        kills: usize,
    },
    /// One member of the store; started by the other measurements.
    #[command(hide = true)]
    StoreMember(store_bench::member::Arguments),
    /// Serves constant bytes; started by the other measurements.
    #[command(hide = true)]
    CeilingServer {
        /// Where its certificate goes.
        #[arg(long)]
        folder: PathBuf,
    },
}

#[derive(clap::Args)]
struct Requests {
    /// Requests of each run.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
}

impl Requests {
    fn size(&self) -> api::Size {
        api::Size { requests: self.requests, lists: self.requests / 40, creates_watched: self.requests / 10 }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let port = arguments.port;
    let rows = match arguments.what {
        What::CeilingServer { folder } => return ceiling::serve(&folder).await,
        What::StoreMember(arguments) => return store_bench::member::run(arguments).await,
        What::Store { seconds, only, rounds } => store_bench::measure::run(seconds, &only, rounds).await?,
        What::StoreSize { objects, with_etcd } => store_bench::size::run(objects, with_etcd).await?,
        What::Failover { kills } => store_bench::failover::run(kills).await?,
        What::Ceiling(requests) => api::ceiling(requests.size()).await?,
        What::Api(requests) => api::api(requests.size(), port).await?,
        What::Startup => nodes::startup_and_idle(port).await?,
        What::Pods => nodes::pods(port).await?,
        What::Customs { definitions, objects } => customs::run(port, definitions, objects).await?,
        What::Schedule { nodes, pods } => nodes::schedule(port, nodes, pods).await?,
    };
    report::print(&rows, arguments.json)
}
