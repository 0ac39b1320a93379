//! Three members of the store, or of etcd, as child processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::pki::{self, Mutual};
use super::wire::RangeRequest;
use super::wire::kv_client::KvClient;
use crate::process::cpu_seconds;

/// Where etcd is looked for.
const ETCD: &str = "/usr/bin/etcd";
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Which servers are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Store,
    Etcd,
}

/// Three servers and what is needed to reach them.
pub struct Servers {
    pub kind: Kind,
    pub members: Vec<Member>,
    pub tls: Mutual,
    folder: tempfile::TempDir,
    ports: u16,
    busy: bool,
}

/// One server.
pub struct Member {
    pub client: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Who leads, as it says; only the store's members do.
    pub leader: watch::Receiver<u64>,
    added: watch::Receiver<u64>,
}

/// Whether etcd is there.
pub fn has_etcd() -> bool {
    Path::new(ETCD).exists()
}

impl Servers {
    /// Starts three servers. `busy`: they write snapshots or checkpoints all the time.
    pub async fn start(kind: Kind, ports: u16, busy: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        pki::write(folder.path(), &["member-1", "member-2", "member-3", "client"])?;
        let tls = Mutual::new(folder.path(), "client")?;
        let mut servers = Self { kind, members: Vec::new(), tls, folder, ports, busy };
        match kind {
            Kind::Etcd => {
                for id in 1..=3 {
                    servers.members.push(servers.etcd(id)?);
                }
            }
            Kind::Store => {
                servers.members.push(servers.member(1)?);
                servers.ready(0).await?;
                for id in 2..=3 {
                    servers.add(id).await?;
                    servers.members.push(servers.member(id)?);
                    servers.ready(id as usize - 1).await?;
                }
                // The learners become voters by themselves.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        for place in 0..3 {
            servers.ready(place).await?;
        }
        Ok(servers)
    }

    fn peer_address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.ports + id as u16)
    }

    fn client_address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.ports + 10 + id as u16)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn member(&self, id: u64) -> Result<Member> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["store-member", "--id", &id.to_string(), "--peer", &self.peer_address(id)])
            .args(["--client", &self.client_address(id)])
            .arg("--data")
            .arg(self.path(&format!("data-{id}")))
            .arg("--pki")
            .arg(self.folder.path());
        if self.busy {
            command.args(["--checkpoint-log-bytes", "1000000"]);
        }
        self.spawn(id, command)
    }

    fn etcd(&self, id: u64) -> Result<Member> {
        let url = |address: String| format!("https://{address}");
        let (peer, client) = (url(self.peer_address(id)), url(self.client_address(id)));
        let cluster: Vec<_> =
            (1..=3).map(|id| format!("member-{id}={}", url(self.peer_address(id)))).collect();
        let file = |name: String| self.path(&name).to_string_lossy().into_owned();
        let (ca, certificate, key) =
            (file("ca.crt".into()), file(format!("member-{id}.crt")), file(format!("member-{id}.key")));
        let mut command = Command::new(ETCD);
        command
            .args(["--name", &format!("member-{id}"), "--data-dir", &file(format!("data-{id}"))])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            .args(["--cert-file", &certificate, "--key-file", &key, "--client-cert-auth"])
            .args(["--trusted-ca-file", &ca, "--peer-trusted-ca-file", &ca, "--peer-client-cert-auth"])
            .args(["--peer-cert-file", &certificate, "--peer-key-file", &key])
            .args(["--logger", "zap", "--log-level", "error"]);
        if self.busy {
            command.args(["--snapshot-count", "5000"]);
        }
        self.spawn(id, command)
    }

    fn spawn(&self, id: u64, mut command: Command) -> Result<Member> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting a server")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (leads, leader) = watch::channel(0);
        let (adds, added) = watch::channel(0);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let told = |word: &str| line.strip_prefix(word).and_then(|number| number.parse::<u64>().ok());
                if let Some(leader) = told("leader ") {
                    leads.send_replace(leader);
                }
                if let Some(id) = told("added ") {
                    adds.send_replace(id);
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Member { client: self.client_address(id), child, stdin, leader, added })
    }

    async fn add(&mut self, id: u64) -> Result<()> {
        let line = format!("member-{id} {}\n", self.peer_address(id));
        let first = self.members.first_mut().context("the first member")?;
        first.stdin.as_mut().context("its input")?.write_all(line.as_bytes()).await?;
        let added = first.added.wait_for(|added| *added == id);
        tokio::time::timeout(READY_WITHIN, added).await.context("the member was not added")??;
        Ok(())
    }

    /// A client of one member, over a connection of its own.
    pub fn client(&self, place: usize) -> Result<KvClient<tonic::transport::Channel>> {
        Ok(KvClient::new(self.tls.client(&self.members[place].client)?))
    }

    /// Waits until a member confirms a read.
    pub async fn ready(&self, place: usize) -> Result<()> {
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        while tokio::time::Instant::now() < deadline {
            let mut client = self.client(place)?;
            let read = client.range(RangeRequest { key: "k".into(), ..RangeRequest::default() });
            if matches!(tokio::time::timeout(Duration::from_secs(2), read).await, Ok(Ok(_))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{:?} member {} was not ready within {READY_WITHIN:?}", self.kind, place + 1)
    }

    /// CPU seconds of the three so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.members.iter().filter_map(|member| member.child.id()).map(cpu_seconds).sum()
    }

    /// kill -9.
    pub async fn kill(&mut self, place: usize) -> Result<()> {
        self.members[place].child.kill().await.context("kill -9")
    }

    /// The process of a member.
    pub fn pid(&self, place: usize) -> u32 {
        self.members[place].child.id().unwrap_or(0)
    }

    /// Starts a member again, and waits until it confirms a read.
    pub async fn restart(&mut self, place: usize) -> Result<()> {
        self.spawn_again(place)?;
        self.ready(place).await
    }

    /// Starts a member again.
    pub fn spawn_again(&mut self, place: usize) -> Result<()> {
        let id = place as u64 + 1;
        self.members[place] = match self.kind {
            Kind::Store => self.member(id)?,
            Kind::Etcd => self.etcd(id)?,
        };
        Ok(())
    }
}
