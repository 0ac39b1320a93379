//! What `/metrics` tells, under upstream's names. Recording a request allocates nothing once its labels were seen.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use apiserver_core::RequestInfo;
use apiserver_core::request::Verb;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use store::Leadership;
use tokio::sync::watch;

/// The content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// More different requests than this are counted together: paths come from clients.
const MAX_KINDS: usize = 4096;

const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// The API server's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    longrunning: Family<LongLabels, Gauge>,
    pub(crate) reading: Gauge,
    pub(crate) mutating: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) handshake_errors: Counter,
    pub(crate) rejected: Counter,
    known: RwLock<HashMap<Box<str>, Arc<Recorder>>>,
}

/// What one kind of request with one answer is counted by.
struct Recorder {
    requests: Counter,
    duration: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    code: u16,
    component: &'static str,
    dry_run: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: &'static str,
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    component: &'static str,
    dry_run: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: &'static str,
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LongLabels {
    component: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: &'static str,
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// Counts a long-running request while it lives.
pub(crate) struct LongRunning(Gauge);

/// What this server's store tells of the group.
#[derive(Debug)]
struct Group(watch::Receiver<Leadership>);

// === impl Metrics ===

impl Metrics {
    /// Metrics of a server whose store tells who leads.
    pub(crate) fn new(leadership: watch::Receiver<Leadership>) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Group(leadership)));
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<DurationLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(BUCKETS)
        });
        let longrunning = Family::<LongLabels, Gauge>::default();
        let inflight = Family::<KindLabels, Gauge>::default();
        let reading = inflight.get_or_create_owned(&KindLabels { request_kind: "readOnly" });
        let mutating = inflight.get_or_create_owned(&KindLabels { request_kind: "mutating" });
        let (connections, handshake_errors, rejected) =
            (Gauge::default(), Counter::default(), Counter::default());
        registry.register("apiserver_request", "Requests by verb, resource and answer", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from a request's head to its answer's head",
            durations.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and streams under way",
            longrunning.clone(),
        );
        registry.register("apiserver_current_inflight_requests", "Requests under way", inflight);
        registry.register("apiserver_open_connections", "Open client connections", connections.clone());
        registry.register(
            "apiserver_tls_handshake_errors",
            "Connections that ended in the handshake",
            handshake_errors.clone(),
        );
        registry.register(
            "apiserver_rejected_requests",
            "Requests turned away because their user had too many under way",
            rejected.clone(),
        );
        Metrics {
            registry,
            requests,
            durations,
            longrunning,
            reading,
            mutating,
            connections,
            handshake_errors,
            rejected,
            known: RwLock::default(),
        }
    }

    /// Records an answered request.
    pub(crate) fn record(&self, info: &RequestInfo, code: u16, took: Duration) {
        thread_local!(static KEY: RefCell<String> = const { RefCell::new(String::new()) });
        KEY.with_borrow_mut(|key| {
            key.clear();
            let dry_run = if info.options.dry_run { "d" } else { "" };
            for part in [
                verb(info),
                &info.group,
                &info.version,
                &info.resource,
                &info.subresource,
                scope(info),
                dry_run,
            ] {
                key.push_str(part);
                key.push('\0');
            }
            // A status code is a char's worth.
            key.extend(char::from_u32(code.into()));
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(key.as_str()).cloned();
            let recorder = known.unwrap_or_else(|| self.recorder(key, info, code));
            recorder.requests.inc();
            recorder.duration.observe(took.as_secs_f64());
        });
    }

    /// Counts a watch or stream until the guard is dropped.
    pub(crate) fn long_running(&self, info: &RequestInfo) -> LongRunning {
        let labels = LongLabels {
            component: "apiserver",
            group: info.group.clone(),
            resource: info.resource.clone(),
            scope: scope(info),
            subresource: info.subresource.clone(),
            verb: if info.verb == Verb::Watch { "WATCH" } else { "CONNECT" },
            version: info.version.clone(),
        };
        let gauge = self.longrunning.get_or_create_owned(&labels);
        gauge.inc();
        LongRunning(gauge)
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    #[cold]
    fn recorder(&self, key: &str, info: &RequestInfo, code: u16) -> Arc<Recorder> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let fits = known.len() < MAX_KINDS;
        let name = |text: &str| if fits { text.to_owned() } else { "other".to_owned() };
        let labels = DurationLabels {
            component: "apiserver",
            dry_run: if info.options.dry_run { "All" } else { "" },
            group: name(&info.group),
            resource: name(&info.resource),
            scope: scope(info),
            subresource: name(&info.subresource),
            verb: verb(info),
            version: name(&info.version),
        };
        let counted = RequestLabels {
            code,
            component: labels.component,
            dry_run: labels.dry_run,
            group: labels.group.clone(),
            resource: labels.resource.clone(),
            scope: labels.scope,
            subresource: labels.subresource.clone(),
            verb: labels.verb,
            version: labels.version.clone(),
        };
        let recorder = Arc::new(Recorder {
            requests: self.requests.get_or_create_owned(&counted),
            duration: self.durations.get_or_create_owned(&labels),
        });
        if fits {
            known.insert(key.into(), recorder.clone());
        }
        recorder
    }
}

impl Collector for Group {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let now = *self.0.borrow();
        let leads = ConstGauge::new(i64::from(now.leads()));
        let help = "Whether this server's store leads the group";
        let kind = leads.metric_type();
        leads.encode(encoder.encode_descriptor("orlop_store_is_leader", help, None, kind)?)?;
        let hand_overs = ConstCounter::new(now.hand_overs);
        let help = "How often this server's store has handed the lead over because its disk was slow";
        let kind = hand_overs.metric_type();
        hand_overs.encode(encoder.encode_descriptor("orlop_store_lead_hand_overs", help, None, kind)?)
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn verb(info: &RequestInfo) -> &'static str {
    match info.verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Head => "HEAD",
        Verb::Options => "OPTIONS",
        Verb::Other => "other",
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_upstream_names() {
        let (_, leadership) = watch::channel(Leadership::default());
        let metrics = Metrics::new(leadership);
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/default/pods/web", "")
            .unwrap_or_else(|_| panic!("parsed"));
        metrics.record(&info, 200, Duration::from_millis(1));
        metrics.record(&info, 200, Duration::from_millis(1));
        let text = metrics.text().expect("encoded");
        let line = text.lines().find(|line| line.starts_with("apiserver_request_total{")).expect("a line");
        assert!(line.contains("verb=\"GET\"") && line.contains("resource=\"pods\""), "{line}");
        assert!(line.contains("code=\"200\"") && line.ends_with(" 2"), "{line}");
        assert!(text.contains("apiserver_request_duration_seconds_bucket{"), "{text}");
    }

    #[test]
    fn what_the_store_tells_is_told() {
        let now = Leadership { member: 2, leader: Some(2), term: 7, hand_overs: 3 };
        let (_, leadership) = watch::channel(now);
        let text = Metrics::new(leadership).text().expect("encoded");
        assert!(text.contains("\norlop_store_is_leader 1\n"), "{text}");
        assert!(text.contains("\norlop_store_lead_hand_overs_total 3\n"), "{text}");
    }
}
