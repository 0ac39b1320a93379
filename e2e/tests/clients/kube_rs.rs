//! kube-rs with its runtime and derive: a custom resource made of a Rust type, and a controller that reconciles it with
//! a finalizer, server-side apply, owned objects, events and a lease.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use e2e::image;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Config, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

const NAMESPACE: &str = "kube-rs";
const MANAGER: &str = "kube-rs-controller";
const FINALIZER: &str = "kube-rs.example.com/done";
/// What takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// A window with a number of panes.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(group = "kube-rs.example.com", version = "v1", kind = "Window", namespaced, status = "WindowStatus")]
#[kube(shortname = "win", category = "all", validation = "self.spec.panes < 10")]
#[kube(printcolumn = r#"{"name":"Panes","type":"integer","jsonPath":".spec.panes"}"#)]
#[kube(scale = r#"{"specReplicasPath":".spec.panes","statusReplicasPath":".status.panes"}"#)]
pub struct WindowSpec {
    /// How many panes it has.
    #[schemars(range(min = 1))]
    panes: i32,
    #[serde(default = "clear")]
    color: String,
    #[serde(default)]
    note: Option<String>,
}

/// What was seen of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct WindowStatus {
    panes: i32,
}

struct Context {
    client: Client,
    recorder: Recorder,
}

fn clear() -> String {
    "clear".to_owned()
}

/// Runs everything against the cluster of a kubeconfig.
pub fn test(kubeconfig: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let read = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        define(&client).await.context("defining")?;
        let controller = tokio::spawn(control(client.clone()));
        reconciled(&client).await.context("reconciling")?;
        seen(&client).await.context("watching")?;
        leased(&client).await.context("leasing")?;
        streamed(&client).await.context("streaming")?;
        removed(&client).await.context("removing")?;
        controller.abort();
        Ok(())
    })
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(LIMIT, future).await.with_context(|| format!("{what}: not in time"))
}

/// The status code of a refusal.
fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

async fn define(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = Window::crd_name();
    definitions.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(Window::crd())).await?;
    let established = await_condition(definitions, name, conditions::is_crd_established());
    within("the definition is established", established).await??;
    Ok(())
}

// ---- the controller ----

async fn control(client: Client) {
    let windows: Api<Window> = Api::namespaced(client.clone(), NAMESPACE);
    let owned: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let recorder = Recorder::new(client.clone(), Reporter { controller: MANAGER.into(), instance: None });
    Controller::new(windows, watcher::Config::default())
        .owns(owned, watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(200)),
            Arc::new(Context { client, recorder }),
        )
        // What fails is tried again; the test sees what does not come.
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(
    window: Arc<Window>,
    context: Arc<Context>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let windows: Api<Window> = Api::namespaced(context.client.clone(), NAMESPACE);
    finalizer(&windows, FINALIZER, window, |event| async {
        match event {
            Event::Apply(window) => apply(&windows, &window, &context).await,
            Event::Cleanup(window) => clean_up(&window, &context).await,
        }
    })
    .await
}

/// A ConfigMap for each pane, and the status.
async fn apply(windows: &Api<Window>, window: &Window, context: &Context) -> Result<Action, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), NAMESPACE);
    for pane in 0..window.spec.panes {
        let name = format!("{}-{pane}", window.name_any());
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": window.spec.color},
            "metadata": {"name": name, "labels": {"pane-of": window.name_any()},
                "ownerReferences": window.controller_owner_ref(&())}});
        let map = with_list(map, "ownerReferences");
        maps.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await?;
    }
    if window.status.as_ref().is_none_or(|status| status.panes != window.spec.panes) {
        let status = json!({"apiVersion": "kube-rs.example.com/v1", "kind": "Window", "status": {"panes": window.spec.panes}});
        windows
            .patch_status(&window.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(status))
            .await?;
        let told = Told {
            type_: EventType::Normal,
            reason: "Glazed".into(),
            note: Some(format!("it has {} panes", window.spec.panes)),
            action: "Glaze".into(),
            secondary: None,
        };
        context.recorder.publish(&told, &window.object_ref(&())).await?;
    }
    Ok(Action::await_change())
}

/// Puts a single object of the metadata into a list.
fn with_list(mut map: Value, field: &str) -> Value {
    let one = map["metadata"][field].take();
    map["metadata"][field] = json!([one]);
    map
}

async fn clean_up(window: &Window, context: &Context) -> Result<Action, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), NAMESPACE);
    let marker = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cleaned", "labels": {"of": window.name_any()}}});
    maps.patch("cleaned", &PatchParams::apply(MANAGER).force(), &Patch::Apply(marker)).await?;
    Ok(Action::await_change())
}

// ---- what it must bring about ----

async fn reconciled(client: &Client) -> Result<()> {
    let windows: Api<Window> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let made = windows
        .create(
            &PostParams::default(),
            &Window::new("front", WindowSpec { panes: 2, color: clear(), note: None }),
        )
        .await?;
    ensure!(made.spec.color == "clear" && made.meta().generation == Some(1), "{made:?}");
    let has = |panes: i32| {
        move |window: Option<&Window>| {
            window.is_some_and(|window| window.status.as_ref().is_some_and(|status| status.panes == panes))
        }
    };
    within("the status", await_condition(windows.clone(), "front", has(2))).await??;
    let panes = ListParams::default().labels("pane-of=front");
    ensure!(maps.list(&panes).await?.items.len() == 2);
    // Too many panes for the rule, too few for the schema, and a scale that is let through.
    let merge = |panes: i32| Patch::Merge(json!({"spec": {"panes": panes}}));
    for wrong in [10, 0] {
        let refused = windows.patch("front", &PatchParams::default(), &merge(wrong)).await;
        ensure!(refused.as_ref().is_err_and(|error| code(error) == 422), "{refused:?}");
    }
    windows
        .patch_scale("front", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await?;
    within("the new status", await_condition(windows.clone(), "front", has(3))).await??;
    ensure!(maps.list(&panes).await?.items.len() == 3);
    // What is owned comes back.
    maps.delete("front-0", &DeleteParams::default()).await?;
    within("the pane comes back", await_condition(maps.clone(), "front-0", conditions::is_created()))
        .await??;
    // A field that the controller owns is not another's.
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": "red"}});
    let conflict = maps.patch("front-0", &PatchParams::apply("other"), &Patch::Apply(other)).await;
    ensure!(
        conflict.as_ref().is_err_and(|error| code(error) == 409 && error.to_string().contains(MANAGER)),
        "{conflict:?}"
    );
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), NAMESPACE);
    let told = events.list(&ListParams::default().fields("reason=Glazed")).await?;
    ensure!(!told.items.is_empty());
    Ok(())
}

/// A reflector that lists by streaming, and a watcher that is told of each change.
async fn seen(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let (reader, writer) = reflector::store();
    let config = watcher::Config::default().streaming_lists().labels("pane-of");
    let stream = watcher(maps.clone(), config).default_backoff().reflect(writer).applied_objects();
    let follower = tokio::spawn(stream.try_for_each(|_| std::future::ready(Ok(()))));
    within("the reflector is ready", reader.wait_until_ready()).await??;
    ensure!(reader.state().len() == 3, "{} panes", reader.state().len());
    maps.patch(
        "front-1",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"labels": {"seen": "yes"}}})),
    )
    .await?;
    let key = reflector::ObjectRef::new("front-1").within(NAMESPACE);
    let noticed = async {
        while reader.get(&key).is_none_or(|map| !map.labels().contains_key("seen")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the change is seen", noticed).await?;
    follower.abort();
    let metadata: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let partial = metadata.get_metadata("front-1").await?;
    ensure!(partial.labels().contains_key("seen"));
    let windows: Api<Window> = Api::namespaced(client.clone(), NAMESPACE);
    let mut entry = windows
        .entry("front")
        .await?
        .and_modify(|window| window.spec.note = Some("seen".into()))
        .or_insert(|| Window::new("front", WindowSpec { panes: 1, color: clear(), note: None }));
    // The controller may have written in between.
    match entry.commit(&PostParams::default()).await {
        Ok(()) | Err(kube::api::entry::CommitError::Save(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Only one may hold a lease: the revision decides.
async fn leased(client: &Client) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = |holder: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"}})
    };
    let first: Lease = serde_json::from_value(lease("a"))?;
    let held = leases.create(&PostParams::default(), &first).await?;
    let taken = leases.create(&PostParams::default(), &first).await;
    ensure!(taken.as_ref().is_err_and(|error| code(error) == 409), "{taken:?}");
    let mut renewed = held.clone();
    renewed.spec.get_or_insert_default().holder_identity = Some("b".into());
    leases.replace("leader", &PostParams::default(), &renewed).await?;
    let late = leases.replace("leader", &PostParams::default(), &held).await;
    ensure!(late.as_ref().is_err_and(|error| code(error) == 409), "{late:?}");
    Ok(())
}

/// Commands, forwarded ports and logs, over WebSockets.
async fn streamed(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "server"}, "spec": {"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": image::TOOL, "args": ["serve"]}]}}),
    )?;
    // Pods wait for the account that a controller makes.
    let created = async {
        while let Err(error) = pods.create(&PostParams::default(), &pod).await {
            if code(&error) != 403 {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    within("the pod is created", created).await??;
    within("the pod runs", await_condition(pods.clone(), "server", conditions::is_pod_running())).await??;
    let mut process = pods.exec("server", ["/tool", "echo", "hello"], &AttachParams::default()).await?;
    let mut said = String::new();
    process.stdout().context("no output")?.read_to_string(&mut said).await?;
    let status = process.take_status().context("no status")?.await.context("no status came")?;
    ensure!(said == "hello\n" && status.status.as_deref() == Some("Success"), "{said:?} {status:?}");
    let mut forward = pods.portforward("server", &[8080]).await?;
    let mut stream = forward.take_stream(8080).ok_or_else(|| anyhow!("no stream"))?;
    tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await?;
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let logs = async {
        while !pods.logs("server", &LogParams::default()).await?.contains("listens on 8080") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<(), kube::Error>(())
    };
    within("the log", logs).await??;
    Ok(())
}

/// The finalizer runs, what is owned goes, and then the definition.
async fn removed(client: &Client) -> Result<()> {
    let windows: Api<Window> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let uid = windows.get("front").await?.uid().context("no uid")?;
    windows.delete("front", &DeleteParams::foreground()).await?;
    within("the window goes", await_condition(windows, "front", conditions::is_deleted(&uid))).await??;
    ensure!(maps.get_opt("cleaned").await?.is_some(), "the finalizer did not run");
    let gone = async {
        loop {
            if maps.list(&ListParams::default().labels("pane-of=front")).await?.items.is_empty() {
                return Ok::<(), kube::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within("the panes go", gone).await??;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    match definitions.delete(Window::crd_name(), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(error) => bail!("the definition cannot be deleted: {error}"),
    }
}
