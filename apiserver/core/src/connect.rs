//! What is carried through the tunnel of a node: exec, attach, logs, port-forward and proxies, with every parameter checked.

use std::net::IpAddr;

/// What the shell is to open through the tunnel of `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectPlan {
    /// The node that serves the stream.
    pub node: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the pod (or node, for a node's proxy).
    pub name: String,
    /// The uid of the pod.
    pub uid: String,
    /// What is opened.
    pub stream: Stream,
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A new process in a container.
    Exec {
        /// The container.
        container: String,
        /// The command and its arguments.
        command: Vec<String>,
        /// Which streams are carried.
        streams: Streams,
    },
    /// The streams of a container's main process.
    Attach {
        /// The container.
        container: String,
        /// Which streams are carried.
        streams: Streams,
    },
    /// A container's log.
    Logs(Logs),
    /// TCP connections to ports of the pod.
    PortForward {
        /// The ports that the query names; empty when the client names them in the stream.
        ports: Vec<u16>,
    },
    /// An HTTP request that is passed on.
    Proxy(Proxied),
}

/// An HTTP request that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Who answers it.
    pub backend: Backend,
    /// The path, with a leading slash, and the query.
    pub target: String,
    /// The path under which the client sees the backend's root.
    pub prefix: String,
}

/// Who answers a request that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The node's agent.
    Agent,
    /// An address in the node's network.
    Address {
        /// Whether it speaks TLS. Its certificate is not looked at.
        tls: bool,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
}

/// Which standard streams are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal; standard error is part of standard output.
    pub tty: bool,
}

/// Which part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// The container.
    pub container: String,
    /// Go on as it grows.
    pub follow: bool,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Only lines younger than this.
    pub since_seconds: Option<i64>,
    /// Only lines after this time (RFC 3339).
    pub since_time: Option<String>,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<i64>,
}
