//! `auth can-i` and `auth whoami`: what the server allows, and to whom.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::apply::say;
use super::error::{Error, Result, message};
use super::session::{Connection, Session, text_at};
use super::tabs;

/// Inspect authorization
#[derive(Args, Debug)]
pub struct Auth {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Check whether an action is allowed: VERB TYPE[/NAME], VERB /PATH
    CanI {
        /// The verb, then the resource or path
        words: Vec<String>,
        /// The subresource
        #[arg(long)]
        subresource: Option<String>,
        /// In all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Say nothing: the exit status tells
        #[arg(short, long)]
        quiet: bool,
        /// List all that is allowed
        #[arg(long)]
        list: bool,
    },
    /// Show who the server thinks that you are
    Whoami,
}

/// Runs `auth`.
pub async fn run(arguments: &Auth) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    match &arguments.action {
        Action::CanI { list: true, .. } => list(&session).await,
        Action::CanI { words, subresource, all_namespaces, quiet, .. } => {
            let namespace = if *all_namespaces { "" } else { &session.namespace };
            let spec = attributes(&session, words, subresource.as_deref(), namespace).await?;
            let answer = review(
                &session,
                "authorization.k8s.io/v1",
                "SelfSubjectAccessReview",
                "selfsubjectaccessreviews",
                spec,
            )
            .await?;
            let allowed = answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false);
            if !quiet {
                let reason = match text_at(&answer, "/status/reason") {
                    "" => String::new(),
                    _ if allowed => String::new(),
                    reason => format!(" - {reason}"),
                };
                say(&format!("{}{reason}", if allowed { "yes" } else { "no" }))?;
            }
            if allowed { Ok(()) } else { Err(Error::Exit(1)) }
        }
        Action::Whoami => {
            let answer = review(
                &session,
                "authentication.k8s.io/v1",
                "SelfSubjectReview",
                "selfsubjectreviews",
                json!({}),
            )
            .await?;
            let groups: Vec<&str> = answer
                .pointer("/status/userInfo/groups")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let text = format!(
                "ATTRIBUTE\tVALUE\nUsername\t{}\nGroups\t[{}]\n",
                text_at(&answer, "/status/userInfo/username"),
                groups.join(" ")
            );
            say(tabs::align(&text, tabs::TABLE).trim_end())
        }
    }
}

async fn attributes(
    session: &Session,
    words: &[String],
    subresource: Option<&str>,
    namespace: &str,
) -> Result<Value> {
    let [verb, what] = words else {
        return message("you must specify two arguments: verb resource or verb resource/resourceName");
    };
    if what.starts_with('/') {
        return Ok(json!({"nonResourceAttributes": {"verb": verb, "path": what}}));
    }
    let (word, name) = what.split_once('/').unwrap_or((what, ""));
    let (group, plural) = match word {
        "*" => ("*".to_owned(), "*".to_owned()),
        word => match session.discovery().await.map_err(|error| session.refused(error))?.find(word) {
            Ok(api) => (api.resource.group.to_string(), api.resource.plural.to_string()),
            Err(_) => {
                eprintln!("Warning: the server doesn't have a resource type '{word}'\n");
                let (plural, group) = word.split_once('.').unwrap_or((word, ""));
                (group.to_owned(), plural.to_owned())
            }
        },
    };
    Ok(json!({"resourceAttributes": {
        "namespace": namespace, "verb": verb, "group": group, "resource": plural,
        "subresource": subresource.unwrap_or_default(), "name": name,
    }}))
}

async fn review(session: &Session, version: &str, kind: &str, plural: &str, spec: Value) -> Result<Value> {
    let mut body = json!({"apiVersion": version, "kind": kind});
    if spec.as_object().is_some_and(|spec| !spec.is_empty()) {
        body["spec"] = spec;
    }
    let (group, version) = api::catalogue::split_api_version(version);
    let resource = client::core::object::ResourceType::new(group, version, kind, plural, false);
    let answer =
        session.client.create_object(&resource, None, &body, &client::params::WriteParams::default()).await;
    answer.map_err(|error| session.refused(error.into()))
}

async fn list(session: &Session) -> Result<()> {
    let spec = json!({"namespace": session.namespace});
    let answer =
        review(session, "authorization.k8s.io/v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", spec)
            .await?;
    let words = |rule: &Value, name: &str| {
        let list = rule.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut text = String::from("Resources\tNon-Resource URLs\tResource Names\tVerbs\n");
    for rule in answer.pointer("/status/resourceRules").and_then(Value::as_array).into_iter().flatten() {
        let groups = words(rule, "apiGroups");
        for resource in words(rule, "resources") {
            for group in &groups {
                let name = super::discovery::qualified(&resource, group);
                text.push_str(&format!(
                    "{name}\t[]\t[{}]\t[{}]\n",
                    words(rule, "resourceNames").join(" "),
                    words(rule, "verbs").join(" ")
                ));
            }
        }
    }
    for rule in answer.pointer("/status/nonResourceRules").and_then(Value::as_array).into_iter().flatten() {
        for url in words(rule, "nonResourceURLs") {
            text.push_str(&format!("\t[{url}]\t[]\t[{}]\n", words(rule, "verbs").join(" ")));
        }
    }
    say(tabs::align(&text, tabs::TABLE).trim_end())
}
