//! kubectl's verbs: what users type to see and change a cluster, any cluster that speaks the Kubernetes API.
//!
//! What is printed for its content goes to standard output, everything said about it to standard error.

mod apply;
mod auth;
mod backup;
mod config;
mod create;
mod delete;
mod describe;
mod discovery;
mod drain;
pub mod error;
mod events;
mod exec;
mod explain;
mod get;
mod info;
mod jsonpath;
mod key;
mod label;
mod logs;
mod manifest;
mod member;
mod merge;
mod output;
mod patch;
mod pods;
mod port_forward;
mod rollout;
mod scale;
mod select;
mod session;
mod set;
mod status;
mod table;
mod tabs;
mod taint;
pub mod token;
mod top;
mod wait;
pub mod watching;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Subcommand;

use error::Result;

/// What can be done to a cluster.
#[derive(Subcommand, Debug)]
pub enum Verb {
    Get(Box<get::Get>),
    Describe(Box<describe::Describe>),
    Apply(Box<apply::Apply>),
    Create(Box<create::Create>),
    Delete(Box<delete::Delete>),
    Logs(Box<logs::Logs>),
    Scale(Box<scale::Scale>),
    Rollout(Box<rollout::Rollout>),
    Set(Box<set::Set>),
    Exec(Box<exec::Exec>),
    Attach(Box<exec::Attach>),
    PortForward(Box<port_forward::PortForward>),
    Top(Box<top::Top>),
    Label(Box<label::Label>),
    Annotate(Box<label::Annotate>),
    Taint(Box<taint::Taint>),
    Cordon(Box<drain::Cordon>),
    Uncordon(Box<drain::Cordon>),
    Drain(Box<drain::Drain>),
    Wait(Box<wait::Wait>),
    Patch(Box<patch::Patch>),
    Replace(Box<patch::Replace>),
    Edit(Box<patch::Edit>),
    Events(Box<events::Events>),
    Auth(Box<auth::Auth>),
    Config(Box<config::Config>),
    Explain(Box<explain::Explain>),
    ApiResources(Box<info::ApiResources>),
    ApiVersions(Box<info::ApiVersions>),
    ClusterInfo(Box<info::ClusterInfo>),
    Version(Box<info::Version>),
    Status(Box<status::Status>),
    Token(Box<token::Token>),
    Member(Box<member::Member>),
    Key(Box<key::Key>),
    Backup(Box<backup::Backup>),
}

/// Runs a verb and returns its exit status. Errors were told when it returns.
pub fn run(verb: &Verb) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(verb));
    // Nothing that still reads the terminal may hold the process up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.tell();
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Get(arguments) => get::run(arguments).await,
        Verb::Describe(arguments) => describe::run(arguments).await,
        Verb::Apply(arguments) => apply::run(arguments).await,
        Verb::Create(arguments) => create::run(arguments).await,
        Verb::Delete(arguments) => delete::run(arguments).await,
        Verb::Logs(arguments) => logs::run(arguments).await,
        Verb::Scale(arguments) => scale::run(arguments).await,
        Verb::Rollout(arguments) => rollout::run(arguments).await,
        Verb::Set(arguments) => set::run(arguments).await,
        Verb::Exec(arguments) => exec::run(arguments).await,
        Verb::Attach(arguments) => exec::attach(arguments).await,
        Verb::PortForward(arguments) => port_forward::run(arguments).await,
        Verb::Top(arguments) => top::run(arguments).await,
        Verb::Label(arguments) => label::label(arguments).await,
        Verb::Annotate(arguments) => label::annotate(arguments).await,
        Verb::Taint(arguments) => taint::run(arguments).await,
        Verb::Cordon(arguments) => drain::cordon(arguments, true).await,
        Verb::Uncordon(arguments) => drain::cordon(arguments, false).await,
        Verb::Drain(arguments) => drain::drain(arguments).await,
        Verb::Wait(arguments) => wait::run(arguments).await,
        Verb::Patch(arguments) => patch::run(arguments).await,
        Verb::Replace(arguments) => patch::replace(arguments).await,
        Verb::Edit(arguments) => patch::edit(arguments).await,
        Verb::Events(arguments) => events::run(arguments).await,
        Verb::Auth(arguments) => auth::run(arguments).await,
        Verb::Config(arguments) => config::run(arguments).await,
        Verb::Explain(arguments) => explain::run(arguments).await,
        Verb::ApiResources(arguments) => info::api_resources(arguments).await,
        Verb::ApiVersions(arguments) => info::api_versions(arguments).await,
        Verb::ClusterInfo(arguments) => info::cluster_info(arguments).await,
        Verb::Version(arguments) => info::version(arguments).await,
        Verb::Status(arguments) => status::run(arguments).await,
        Verb::Token(arguments) => token::run(arguments).await,
        Verb::Member(arguments) => member::run(arguments).await,
        Verb::Key(arguments) => key::run(arguments).await,
        Verb::Backup(arguments) => backup::run(arguments).await,
    }
}

/// Flags that may stand before the verb, as `orlop -n web get pods`, and take a value.
const BEFORE: [&str; 11] = [
    "--request-timeout",
    "-n",
    "--namespace",
    "--context",
    "--cluster",
    "--kubeconfig",
    "-s",
    "--server",
    "--token",
    "--as",
    "--as-group",
];

/// The arguments with the connection's flags put after the verb, where they are understood.
pub fn arguments(all: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all = all.into_iter();
    let mut out: Vec<OsString> = all.next().into_iter().collect();
    let mut flags = Vec::new();
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy();
        let name = text.split('=').next().unwrap_or_default();
        let attached = text.starts_with("-n") && !text.starts_with("--") && text.len() > 2;
        if BEFORE.contains(&name) {
            let separate = !text.contains('=');
            flags.push(argument);
            if separate {
                flags.extend(all.next());
            }
        } else if attached {
            flags.push(argument);
        } else {
            out.push(argument);
            break;
        }
    }
    out.extend(flags);
    out.extend(all);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let found = arguments(line.split(' ').map(OsString::from));
        let found: Vec<_> = found.iter().map(|argument| argument.to_string_lossy()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[derive(clap::Parser)]
    struct All {
        #[command(subcommand)]
        verb: Verb,
    }

    #[test]
    fn flags_do_not_collide() {
        use clap::{CommandFactory as _, Parser as _};
        All::command().debug_assert();
        let all = All::parse_from(["orlop", "create", "rolebinding", "b", "--role=r", "--user=u", "-n", "x"]);
        assert!(matches!(all.verb, Verb::Create(_)));
    }

    #[test]
    fn flags_before_the_verb() {
        check("orlop -n web get pods", "orlop get -n web pods");
        check("orlop --context=x -nweb get pods -o yaml", "orlop get --context=x -nweb pods -o yaml");
        check("orlop exec -it x -- sh -n y", "orlop exec -it x -- sh -n y");
        check("orlop up --nodes 3", "orlop up --nodes 3");
        check("orlop", "orlop");
    }
}
