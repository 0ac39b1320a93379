//! `create`: new objects from files, or from flags.

use std::io::Write as _;

use clap::{Args, Subcommand};
use client::params::WriteParams;
use serde_json::Value;

use super::apply::{LAST_APPLIED, field_validation, say, with_last_applied};
use super::error::{Error, Result};
use super::manifest::{self, Document, Files};
use super::output::{Output, name_of, without_managed_fields};
use super::select::DryRun;
use super::session::{Connection, Session, text_at};

mod generate;
mod rbac;

/// Create an object from a file, from standard input, or from flags
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Create {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    kind: Option<What>,
}

/// How objects are created and shown.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only try: client sends nothing, server stores nothing
    #[arg(long, global = true, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// yaml, json, name, jsonpath=TEMPLATE, …
    #[arg(short, long, global = true, value_name = "FORMAT")]
    output: Option<String>,
    /// Remember the configuration, for a later apply
    #[arg(long, global = true)]
    save_config: bool,
    /// What becomes of unknown fields: strict, warn, ignore
    #[arg(long, global = true, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    validate: String,
    #[command(flatten)]
    connection: Connection,
}

/// What can be made from flags.
#[derive(Subcommand, Debug)]
enum What {
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace {
        /// Its name
        name: String,
    },
    /// Create a deployment
    #[command(visible_alias = "deploy")]
    Deployment(generate::Deployment),
    /// Create a config map
    #[command(visible_alias = "cm")]
    Configmap(generate::ConfigMap),
    /// Create a secret
    #[command(subcommand)]
    Secret(generate::Secret),
    /// Create a service account
    #[command(visible_alias = "sa")]
    Serviceaccount {
        /// Its name
        name: String,
    },
    /// Create a service
    #[command(visible_alias = "svc", subcommand)]
    Service(generate::Service),
    /// Create a role
    Role(rbac::Role),
    /// Create a cluster role
    Clusterrole(rbac::ClusterRole),
    /// Create a role binding
    Rolebinding(rbac::RoleBinding),
    /// Create a cluster role binding
    Clusterrolebinding(rbac::ClusterRoleBinding),
    /// Create a priority class
    #[command(visible_alias = "pc")]
    Priorityclass(generate::PriorityClass),
    /// Ask for a token of a service account
    Token(generate::Token),
}

/// Runs `create`.
pub async fn run(arguments: &Create) -> Result<()> {
    let session = Session::open(&arguments.options.connection, "kubectl-create").await?;
    let documents = match &arguments.kind {
        None => {
            arguments.files.required()?;
            arguments.files.read()?
        }
        Some(What::Token(token)) => return generate::token(&session, token).await,
        Some(kind) => {
            let value = generated(&session, kind).await?;
            vec![Document { value, source: String::new() }]
        }
    };
    create_all(&session, documents, &arguments.options).await
}

async fn generated(session: &Session, kind: &What) -> Result<Value> {
    match kind {
        What::Namespace { name } => Ok(generate::plain("v1", "Namespace", name)),
        What::Serviceaccount { name } => Ok(generate::plain("v1", "ServiceAccount", name)),
        What::Deployment(deployment) => Ok(deployment.object()),
        What::Configmap(map) => map.object(),
        What::Secret(secret) => secret.object(),
        What::Service(service) => service.object(),
        What::Role(role) => role.object(session.discovery().await?),
        What::Clusterrole(role) => role.object(session.discovery().await?),
        What::Rolebinding(binding) => binding.object(&session.namespace),
        What::Clusterrolebinding(binding) => binding.object(&session.namespace),
        What::Priorityclass(class) => Ok(class.object()),
        What::Token(_) => Ok(Value::Null),
    }
}

/// Creates all documents; goes on after one that failed.
pub async fn create_all(session: &Session, documents: Vec<Document>, options: &Options) -> Result<()> {
    let output = Output::parse(options.output.as_deref())?;
    let params = WriteParams {
        dry_run: options.dry_run == DryRun::Server,
        field_validation: Some(field_validation(&options.validate)?.to_owned()),
        ..WriteParams::default()
    };
    let from_flags = documents.iter().all(|document| document.source.is_empty());
    if options.dry_run == DryRun::Client && from_flags {
        // Nothing of the server is needed to print what flags say.
        for document in documents {
            let mut value = document.value;
            if session.namespace_given
                && text_at(&value, "/kind") != "Namespace"
                && let Some(Value::Object(metadata)) = value.get_mut("metadata")
            {
                metadata.insert("namespace".to_owned(), Value::String(session.namespace.clone()));
            }
            show(&output, options, value)?;
        }
        return Ok(());
    }
    let mut errors = Vec::new();
    for resolved in manifest::resolve(session, documents).await.map_err(|error| session.refused(error))? {
        let remembered = resolved
            .value
            .pointer("/metadata/annotations")
            .is_some_and(|all| all.get(LAST_APPLIED).is_some());
        let value = if options.save_config || remembered {
            with_last_applied(&resolved.value)
        } else {
            resolved.value
        };
        if options.dry_run == DryRun::Client {
            show(&output, options, value)?;
            continue;
        }
        let namespace = resolved.target.key.namespace_opt();
        match session.client.create_object(&resolved.api.resource, namespace, &value, &params).await {
            Ok(object) => show(&output, options, object)?,
            Err(source) if resolved.source.is_empty() => {
                errors.push(session.refused(flags_error(source, &resolved.api.resource.kind)))
            }
            Err(source) => errors.push(session.refused(Error::Sourced {
                action: "creating",
                source_name: resolved.source,
                source,
            })),
        }
    }
    Error::all(errors)
}

/// A refusal of what flags made: `error: failed to create deployment: …`.
fn flags_error(error: client::Error, kind: &str) -> Error {
    match &error {
        client::Error::Status(status) if kind != "Namespace" => {
            let text = status.message.as_deref().unwrap_or_default();
            Error::Message(format!("failed to create {}: {text}", kind.to_lowercase()))
        }
        _ => error.into(),
    }
}

fn show(output: &Output, options: &Options, mut object: Value) -> Result<()> {
    if output.is_table() {
        return say(&format!("{} created{}", name_of(&object), options.dry_run.suffix()));
    }
    without_managed_fields(&mut object);
    let mut out = std::io::stdout().lock();
    output.print(&object, &mut out)?;
    out.flush()?;
    Ok(())
}
