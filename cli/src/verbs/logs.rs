//! `logs`: what containers wrote.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use client::Client;
use client::params::ListParams;
use client::watch::Lines;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::error::{Error, Result, message};
use super::get::encoded;
use super::session::{Connection, Session, text_at};
use super::{pods, watching};

/// Print the logs of a container in a pod or a workload
#[derive(Args, Debug)]
pub struct Logs {
    /// POD, or TYPE/NAME
    words: Vec<String>,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// Of the container that ran before
    #[arg(short, long)]
    previous: bool,
    /// Only what is newer than this
    #[arg(long, value_parser = watching::duration)]
    since: Option<Duration>,
    /// Only what was written after this time (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    /// So many lines at the end; -1 is all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// At most so many bytes
    #[arg(long)]
    limit_bytes: Option<i64>,
    /// With the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Of all containers
    #[arg(long)]
    all_containers: bool,
    /// Of all pods of a workload
    #[arg(long)]
    all_pods: bool,
    /// With pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// Of all pods with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Go on when one log cannot be read
    #[arg(long)]
    ignore_errors: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    #[command(flatten)]
    connection: Connection,
}

/// One log.
struct Log {
    path: String,
    prefix: String,
}

/// Runs `logs`.
pub async fn run(arguments: &Logs) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let pods = arguments.pods(&session).await?;
    let mut logs = Vec::new();
    for pod in &pods {
        logs.extend(arguments.of_pod(pod)?);
    }
    if arguments.follow && logs.len() > 1 {
        if logs.len() > arguments.max_log_requests {
            return message(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                logs.len(),
                arguments.max_log_requests
            ));
        }
        let mut all: FuturesUnordered<_> = logs.iter().map(|log| print(&session, log)).collect();
        while let Some(outcome) = all.next().await {
            arguments.bear(outcome)?;
        }
        return Ok(());
    }
    for log in &logs {
        arguments.bear(print(&session, log).await)?;
    }
    Ok(())
}

// === impl Logs ===

impl Logs {
    fn bear(&self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error) if self.ignore_errors && !error.is_broken_pipe() => {
                error.tell();
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn pods(&self, session: &Session) -> Result<Vec<Value>> {
        if let Some(selector) = &self.selector {
            if !self.words.is_empty() {
                return message("only a selector (-l) or a POD name is allowed");
            }
            let params = ListParams::all().labels(selector.as_str());
            let found = pods::list(session, Some(&session.namespace), params).await?;
            if found.is_empty() {
                eprintln!("No resources found in {} namespace.", session.namespace);
            }
            return Ok(found);
        }
        let word = match self.words.as_slice() {
            [one] => one.clone(),
            [first, second] if first.contains('/') || self.container.is_none() => {
                // The second word is the container.
                return Ok(vec![self.single(session, first, Some(second)).await?]);
            }
            [] => {
                return message(
                    "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
                );
            }
            _ => return message("only one of -c or an inline [CONTAINER] arg is allowed"),
        };
        if self.all_pods
            && let Some((kind, name)) = word.split_once('/')
        {
            let api = session.find(kind).await?;
            let object = session.client.get_object(&session.target(&api, name)).await?;
            return pods::of(session, &object).await;
        }
        Ok(vec![self.single(session, &word, None).await?])
    }

    async fn single(&self, session: &Session, word: &str, container: Option<&str>) -> Result<Value> {
        let mut pod = match pods::one(session, word).await {
            Err(error) if error.is_not_found() && !word.contains('/') => {
                return message(format!(
                    "error from server (NotFound): pods \"{word}\" not found in namespace \"{}\"",
                    session.namespace
                ));
            }
            pod => pod?,
        };
        if word.contains('/') && !word.starts_with("po") {
            eprintln!("Using pod/{}", text_at(&pod, "/metadata/name"));
        }
        if let Some(container) = container {
            // Named inline: it is as if it were the pod's default.
            pods::container(&pod, Some(container))?;
            pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] =
                Value::from(container);
        }
        Ok(pod)
    }

    fn of_pod(&self, pod: &Value) -> Result<Vec<Log>> {
        let names: Vec<String> = if self.all_containers {
            let mut all = pods::containers(pod);
            // Containers that ran first are told first.
            all.sort_by_key(|(_, suffix)| suffix.is_empty());
            all.into_iter().map(|(name, _)| name.to_owned()).collect()
        } else {
            vec![pods::container(pod, self.container.as_deref())?]
        };
        let target = pods::target(pod);
        let tail = self.tail.or(self.selector.is_some().then_some(10)).filter(|tail| *tail >= 0);
        Ok(names
            .into_iter()
            .map(|name| {
                let mut query = format!("{}?container={}", target.path(Some("log")), encoded(&name));
                let mut add = |key: &str, value: Option<String>| {
                    if let Some(value) = value {
                        query.push_str(&format!("&{key}={}", encoded(&value)));
                    }
                };
                add("follow", self.follow.then(|| "true".to_owned()));
                add("previous", self.previous.then(|| "true".to_owned()));
                add("timestamps", self.timestamps.then(|| "true".to_owned()));
                add("sinceSeconds", self.since.map(|since| since.as_secs().max(1).to_string()));
                add("sinceTime", self.since_time.clone());
                add("tailLines", tail.map(|tail| tail.to_string()));
                add("limitBytes", self.limit_bytes.map(|limit| limit.to_string()));
                let prefix =
                    if self.prefix { format!("[pod/{}/{name}] ", target.key.name) } else { String::new() };
                Log { path: query, prefix }
            })
            .collect())
    }
}

/// Prints one log, as it comes.
async fn print(session: &Session, log: &Log) -> Result<()> {
    let request = Client::build(Method::GET, &log.path)?;
    let answer = session.client.stream(request).await.map_err(|error| session.refused(error.into()))?;
    let mut body = answer.into_body();
    if !log.prefix.is_empty() {
        let mut lines = Lines::new(body);
        while let Some(batch) = lines.next_batch().await? {
            let mut out = std::io::stdout().lock();
            for line in batch {
                out.write_all(log.prefix.as_bytes())?;
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        return Ok(());
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Server(client::Error::Transport(error)))?;
        if let Ok(data) = frame.into_data() {
            let mut out = std::io::stdout().lock();
            out.write_all(&data)?;
            out.flush()?;
        }
    }
    Ok(())
}
