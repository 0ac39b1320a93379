//! The `orlop` binary: server roles and kubectl-style verbs.

mod agent;
mod allocator;
mod components;
mod control_plane;
mod demo;
mod doctor;
mod elected;
mod image;
mod join;
mod kubeconfig;
mod layout;
mod lock;
mod networks;
mod oidc;
mod pod_routes;
mod recover;
mod reset;
mod roles;
mod server;
mod up;
mod verbs;
mod workload;

use std::io::IsTerminal;
use std::process::ExitCode;

use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Threads that run tasks; more cost memory and win nothing on small machines.
const WORKERS: usize = 2;

/// A cluster orchestrator in one binary that speaks the Kubernetes API.
#[derive(Parser)]
#[command(name = "orlop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this machine, in the foreground.
    Up(up::Up),
    /// Show the main job on a throw-away cluster: needs root, takes about a minute.
    Demo,
    /// Start a server of a cluster on this host, in the foreground: the first, or one that joins others.
    Server(Box<server::Server>),
    /// Run this host as a node of a cluster, in the foreground.
    Agent(Box<agent::Agent>),
    /// Run the scheduler as a process of its own.
    Scheduler(roles::Scheduler),
    /// Run the controllers as a process of their own.
    Controller(roles::Controller),
    /// Run the service proxy and DNS of this host as a process of its own.
    Proxy(roles::Proxy),
    /// Print a kubeconfig for a user, on a host that has the cluster's authority.
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Check whether this host can run a node.
    Doctor,
    /// End and remove what a node that was stopped has left running on this host: containers, mounts, rules.
    Reset(reset::Reset),
    /// Load images into the nodes of a cluster on this machine.
    #[command(subcommand)]
    Image(image::Image),
    #[command(flatten)]
    Verb(verbs::Verb),
    /// What Orlop starts by itself.
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

#[derive(Subcommand)]
enum Internal {
    /// The demo workload.
    Workload(workload::Workload),
}

fn main() -> ExitCode {
    // A container's shim must never have a second thread.
    if let Some(code) = nodeagent::shim::dispatch() {
        return code;
    }
    match run(Arguments::parse_from(verbs::arguments(std::env::args_os())).command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(arguments) => served(up::run(arguments)),
        Command::Demo => served_with(demo::run(), "error"),
        Command::Server(arguments) => {
            arguments.enter()?;
            served(server::run(*arguments))
        }
        Command::Agent(arguments) => served(agent::run(*arguments)),
        Command::Scheduler(arguments) => served(roles::scheduler(arguments)),
        Command::Controller(arguments) => served(roles::controller(arguments)),
        Command::Proxy(arguments) => served(roles::proxy(arguments)),
        Command::Kubeconfig(arguments) => kubeconfig::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Reset(arguments) => reset::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Doctor => Ok(show_checks(&doctor::run())),
        Command::Image(image) => image::run(&image).map(|()| ExitCode::SUCCESS),
        Command::Verb(verb) => Ok(verbs::run(&verb)),
        Command::Internal(Internal::Workload(arguments)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(workload::run(arguments))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a role of the cluster, with its log on standard error.
fn served(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    served_with(async { role.await.map(|()| true) }, "warn")
}

/// As [`served`]; the role says whether it succeeded.
fn served_with(role: impl Future<Output = anyhow::Result<bool>>, level: &str) -> anyhow::Result<ExitCode> {
    // kube-client logs what is returned to us as an error, and told where it is handled.
    let usual = || EnvFilter::new(format!("{level},kube_client=off"));
    let filter = EnvFilter::try_from_env("ORLOP_LOG").unwrap_or_else(|_| usual());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let outcome = runtime.block_on(role);
    // Nothing that still blocks a thread may hold the process up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map(|succeeded| if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_checks(checks: &[doctor::Check]) -> ExitCode {
    let mut healthy = true;
    for check in checks {
        match &check.result {
            Ok(found) => println!("ok    {}: {found}", check.name),
            Err(problem) => {
                healthy = false;
                println!("FAIL  {}: {}\n      fix: {}", check.name, problem.what, problem.fix);
            }
        }
    }
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
