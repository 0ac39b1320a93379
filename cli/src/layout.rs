//! Where a cluster on this machine keeps what it knows.

use std::path::{Path, PathBuf};

/// Environment variable that names the data directory.
pub const DATA_DIR_VARIABLE: &str = "ORLOP_DATA_DIR";
/// Where the data directory is when nobody names one.
pub const DATA_DIR: &str = "/var/lib/orlop";

/// In a node's directory: held by the process that runs the node.
pub const AGENT_LOCK: &str = "agent.lock";

/// In a node's directory: what its agent is told.
pub const AGENT_FILE: &str = "agent.json";

/// The paths below one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Layout {
        Layout { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A short name of the cluster, the same for the same directory: names what it makes on this machine.
    pub fn cluster(&self) -> String {
        // FNV-1a; any hash that stays the same would do.
        let hash =
            self.root.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{:08x}", hash >> 32)
    }

    /// Held by the process that runs the cluster.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The administrator's way in.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// What a server on a host of its own remembers of itself.
    pub fn server(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Where one of several servers on this machine keeps its data.
    pub fn server_dir(&self, name: &str) -> PathBuf {
        self.servers().join(name)
    }

    /// What several servers on this machine keep.
    pub fn servers(&self) -> PathBuf {
        self.root.join("servers")
    }

    /// Log and checkpoints.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Image content, shared by the nodes of this machine.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What one node keeps.
    pub fn node(&self, name: &str) -> PathBuf {
        self.nodes().join(name)
    }

    /// What all nodes keep.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }
}
