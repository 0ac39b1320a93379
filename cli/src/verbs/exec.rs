//! `exec` and `attach`: a terminal, or plain pipes, to a container.

use std::io::IsTerminal as _;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::error::{Error, Result, message};
use super::manifest::Files;
use super::pods;
use super::session::{Connection, Session, text_at};

mod terminal;

use terminal::RawMode;

/// How much is read at once.
const CHUNK: usize = 32 * 1024;
/// The largest exit status that a process can have.
const MAX_STATUS: i64 = 255;

/// Execute a command in a container
#[derive(Args, Debug)]
pub struct Exec {
    /// POD, or TYPE/NAME
    word: Option<String>,
    /// The command, after --
    #[arg(last = true, allow_hyphen_values = true)]
    command: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    connection: Connection,
}

/// Attach to a process that is running in a container
#[derive(Args, Debug)]
pub struct Attach {
    /// POD, or TYPE/NAME
    word: String,
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    connection: Connection,
}

/// What is connected to what.
#[derive(Args, Debug)]
pub struct Streams {
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Say nothing besides what the container says
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `exec`.
pub async fn run(arguments: &Exec) -> Result<()> {
    if arguments.command.is_empty() {
        return message("you must specify at least one command for the container");
    }
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let pod = match (&arguments.word, arguments.files.is_empty()) {
        (Some(word), _) => pods::one(&session, word).await?,
        (None, false) => {
            let all = super::manifest::resolve(&session, arguments.files.read()?).await?;
            match all.as_slice() {
                [one] => {
                    pods::one(&session, &format!("{}/{}", one.api.qualified_plural(), one.target.key.name))
                        .await?
                }
                _ => return message("the file must have exactly one object"),
            }
        }
        (None, true) => return message("pod, type/name or --filename must be specified"),
    };
    let phase = text_at(&pod, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return message(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    connect(&session, &pod, &arguments.streams, Some(&arguments.command)).await
}

/// Runs `attach`.
pub async fn attach(arguments: &Attach) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let pod = pods::one(&session, &arguments.word).await?;
    if arguments.streams.stdin && !arguments.streams.quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    connect(&session, &pod, &arguments.streams, None).await
}

async fn connect(
    session: &Session,
    pod: &Value,
    streams: &Streams,
    command: Option<&[String]>,
) -> Result<()> {
    let container = pods::container(pod, streams.container.as_deref())?;
    let mut tty = streams.tty;
    if tty && !std::io::stdin().is_terminal() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        tty = false;
    }
    let params = AttachParams {
        container: Some(container),
        stdin: streams.stdin,
        stdout: true,
        // A terminal has one output.
        stderr: !tty,
        tty,
        max_stdin_buf_size: Some(CHUNK),
        max_stdout_buf_size: Some(CHUNK),
        max_stderr_buf_size: Some(CHUNK),
    };
    let Some(client) = session.client.kube() else { return message("streams need a server on the network") };
    let api: Api<Pod> = Api::namespaced(client, text_at(pod, "/metadata/namespace"));
    let name = text_at(pod, "/metadata/name");
    let process = match command {
        Some(command) => api.exec(name, command.iter().cloned(), &params).await?,
        None => api.attach(name, &params).await?,
    };
    let raw = if tty { RawMode::enter()? } else { None };
    let status = carry(process, streams.stdin, tty).await;
    drop(raw);
    finish(status?)
}

/// Carries all streams until the process has ended.
async fn carry(mut process: AttachedProcess, stdin: bool, tty: bool) -> Result<Option<Status>> {
    let status = process.take_status();
    let stdout = process.stdout().map(|from| tokio::spawn(copy(from, tokio::io::stdout())));
    let stderr = process.stderr().map(|from| tokio::spawn(copy(from, tokio::io::stderr())));
    if let Some(mut to) = process.stdin().filter(|_| stdin) {
        tokio::spawn(async move {
            let mut from = tokio::io::stdin();
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = from.read(&mut chunk).await {
                let Some(bytes) = chunk.get(..count) else { break };
                if to.write_all(bytes).await.is_err() || to.flush().await.is_err() {
                    break;
                }
            }
            // The end of the input is passed on; an error means that nobody reads it any more.
            let _ = to.shutdown().await;
        });
    }
    if let Some(mut sizes) = process.terminal_size().filter(|_| tty) {
        tokio::spawn(async move {
            use futures::SinkExt as _;
            let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
            loop {
                if let Some((width, height)) = terminal::size()
                    && sizes.send(TerminalSize { width, height }).await.is_err()
                {
                    return;
                }
                if changes.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    for stream in [stdout, stderr].into_iter().flatten() {
        if let Ok(outcome) = stream.await {
            outcome?;
        }
    }
    Ok(match status {
        Some(status) => status.await,
        None => None,
    })
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

/// What the end of the process means for ours.
fn finish(status: Option<Status>) -> Result<()> {
    let Some(status) = status else { return Ok(()) };
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    if let Some(code) = exit_code(&status) {
        eprintln!("command terminated with exit code {code}");
        return Err(Error::Exit(u8::try_from(code.clamp(1, MAX_STATUS)).unwrap_or(1)));
    }
    message(status.message.unwrap_or_else(|| "the stream ended".to_owned()))
}

fn exit_code(status: &Status) -> Option<i64> {
    if status.reason.as_deref() != Some("NonZeroExitCode") {
        return None;
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref())?;
    let cause = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    cause.message.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: Value, expected: Option<u8>) {
        let status: Status = serde_json::from_value(status).expect("a status");
        let code = finish(Some(status)).err().map(|error| error.exit_code());
        assert_eq!(code, expected);
    }

    #[test]
    fn exit_statuses() {
        check(json!({"status": "Success"}), None);
        check(
            json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}}),
            Some(42),
        );
        check(json!({"status": "Failure", "reason": "InternalError", "message": "no such file"}), Some(1));
    }
}
