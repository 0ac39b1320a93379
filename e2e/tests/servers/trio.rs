//! Three servers, each on a host of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::hosts::{Hosts, PORT, Process};
use e2e::https::Api;
use e2e::netns;
use e2e::slow_disk::SlowDisk;
use e2e::wait::eventually;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The room of a small disk: a few segments of the log.
const SMALL: &str = "size=96m";

/// The servers; number 1 is on host 1.
pub struct Trio {
    hosts: Hosts,
    running: [Option<Process>; 3],
    /// Their names; a server that joins anew gets another.
    names: [String; 3],
    api: Api,
}

/// A small disk under a server's data.
pub struct SmallDisk {
    dir: PathBuf,
}

impl Trio {
    /// Starts all three; returns when all vote.
    ///
    /// # Errors
    /// When they do not come together.
    pub fn start() -> Result<Trio> {
        Trio::on(Hosts::connect(3)?)
    }

    /// Starts all three, with disks that can be made slow.
    ///
    /// # Errors
    /// When they do not come together.
    pub fn with_slow_disks() -> Result<Trio> {
        Trio::on(Hosts::connect(3)?.with_slow_disks())
    }

    fn on(hosts: Hosts) -> Result<Trio> {
        let first = hosts.server(1, "s1", None)?;
        let api = Api::from_kubeconfig(&hosts.kubeconfig(1, "s1")?)?;
        let names = [1, 2, 3].map(|number| format!("s{number}"));
        let mut trio = Trio { hosts, running: [Some(first), None, None], names, api };
        for server in [2, 3] {
            trio.join(server)?;
        }
        trio.until_whole()?;
        Ok(trio)
    }

    /// The hosts.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The API of one server.
    pub fn api(&self, server: usize) -> Api {
        self.api.at(&self.hosts.address(server).to_string())
    }

    /// The APIs of all.
    pub fn apis(&self) -> Vec<Api> {
        (1..=3).map(|server| self.api(server)).collect()
    }

    fn join(&mut self, server: usize) -> Result<()> {
        let helper = (1..=3).find(|other| *other != server && self.running[other - 1].is_some());
        let helper = helper.context("nobody to join")?;
        let token = self.hosts.token(helper, &self.names[helper - 1].clone(), true)?;
        let address = format!("{}:{PORT}", self.hosts.address(helper));
        let name = self.names[server - 1].clone();
        self.running[server - 1] = Some(self.hosts.server(server, &name, Some((&address, &token)))?);
        Ok(())
    }

    /// The members, as some server says.
    fn members(&self) -> Result<Vec<Value>> {
        let mut last = anyhow::anyhow!("no server runs");
        for server in 1..=3 {
            match self.api(server).get("/orlop/v1/members").and_then(|answer| {
                ensure!(answer.status == 200, "{}", answer.text());
                answer.json()
            }) {
                Ok(members) => return members.as_array().cloned().context("not a list"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A server that leads, or one that does not.
    ///
    /// # Errors
    /// When there is none.
    pub fn one(&self, leading: bool) -> Result<usize> {
        eventually("somebody leads", || {
            let members = self.members()?;
            let leader = members.iter().find(|member| member["leader"] == true).context("nobody leads")?;
            let leader =
                self.names.iter().position(|name| leader["name"] == name.as_str()).context("a stranger")? + 1;
            if leading { Ok(leader) } else { Ok(leader % 3 + 1) }
        })
    }

    /// Waits until three servers vote, can be reached, and one leads.
    ///
    /// # Errors
    /// When that does not come.
    pub fn until_whole(&self) -> Result<()> {
        eventually("three servers vote", || {
            let members = self.members()?;
            let whole = members.len() == 3
                && members.iter().all(|one| one["role"] == "voter" && one["appliedIndex"].is_u64())
                && members.iter().any(|one| one["leader"] == true);
            ensure!(whole, "{members:?}");
            Ok(())
        })
    }

    /// Waits until all servers hold the same objects.
    ///
    /// # Errors
    /// When they do not.
    pub fn until_same_state(&self) -> Result<()> {
        eventually("all servers hold the same", || {
            let lists = self
                .apis()
                .iter()
                .map(|api| {
                    Ok(api.get("/api/v1/namespaces/default/configmaps?resourceVersion=0")?.json()?["items"]
                        .take())
                })
                .collect::<Result<Vec<Value>>>()?;
            ensure!(lists.windows(2).all(|pair| pair[0] == pair[1]), "{lists:?}");
            Ok(())
        })
    }

    fn process(&mut self, server: usize) -> Result<Process> {
        self.running[server - 1].take().context("it does not run")
    }

    /// Kills a server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, server: usize) -> Result<()> {
        self.process(server)?.kill()
    }

    /// Stops a server.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(&mut self, server: usize) -> Result<()> {
        self.process(server)?.stop(Signal::SIGTERM)
    }

    /// Sends a signal to a server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, server: usize, signal: Signal) -> Result<()> {
        self.running[server - 1].as_ref().context("it does not run")?.signal(signal)
    }

    /// The disk of a server that runs.
    ///
    /// # Errors
    /// When it cannot be made slow.
    pub fn disk(&self, server: usize) -> Result<&SlowDisk> {
        self.running[server - 1].as_ref().context("it does not run")?.disk()
    }

    /// How often a server has handed the lead over because its disk was slow, as its metrics tell.
    ///
    /// # Errors
    /// When they do not tell.
    pub fn hand_overs(&self, server: usize) -> Result<u64> {
        let text = self.api(server).get("/metrics")?.text();
        let line = text.lines().find_map(|line| line.strip_prefix("orlop_store_lead_hand_overs_total "));
        Ok(line.with_context(|| format!("its metrics do not tell: {text}"))?.parse()?)
    }

    /// Starts a server on its data.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_again(&mut self, server: usize) -> Result<()> {
        let name = self.names[server - 1].clone();
        self.running[server - 1] = Some(self.hosts.server(server, &name, None)?);
        Ok(())
    }

    /// Starts a server on its data, if it has ended.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn revive(&mut self, server: usize) -> Result<()> {
        if let Some(process) = &mut self.running[server - 1]
            && process.must_run().is_ok()
        {
            return Ok(());
        }
        self.running[server - 1] = None;
        self.start_again(server)
    }

    /// Removes a server from the cluster.
    ///
    /// # Errors
    /// When the others refuse.
    pub fn remove(&self, server: usize) -> Result<()> {
        let helper = server % 3 + 1;
        let kubeconfig = self.hosts.kubeconfig(helper, &self.names[helper - 1])?;
        let kubeconfig = kubeconfig.to_string_lossy().into_owned();
        let name = &self.names[server - 1];
        self.hosts.orlop_ok(helper, &["member", "remove", name, "--kubeconfig", &kubeconfig]).map(|_| ())
    }

    /// Waits until a server has ended by itself; returns what it said.
    ///
    /// # Errors
    /// When it goes on.
    pub fn end_of(&mut self, server: usize) -> Result<String> {
        let mut process = self.process(server)?;
        process.end()?;
        Ok(process.said())
    }

    /// Names and versions of the config maps that a server has.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn names_at(&self, server: usize) -> Result<Vec<String>> {
        let list = self.api(server).get("/api/v1/namespaces/default/configmaps")?.json()?;
        let name =
            |item: &Value| format!("{} {}", item["metadata"]["name"], item["metadata"]["resourceVersion"]);
        Ok(list["items"].as_array().context("no list")?.iter().map(name).collect())
    }

    /// Makes a server, none of which runs, the only one.
    ///
    /// # Errors
    /// When that is refused.
    pub fn recover(&self, server: usize) -> Result<()> {
        let dir = self.hosts.data_dir(&self.names[server - 1]).to_string_lossy().into_owned();
        let careless = self.hosts.orlop(server, &["member", "recover", "--data-dir", &dir])?;
        ensure!(!careless.status.success(), "it does not ask");
        self.hosts
            .orlop_ok(server, &["member", "recover", "--data-dir", &dir, "--others-are-lost"])
            .map(|_| ())
    }

    /// Starts a server that must not come up; returns what it says now.
    ///
    /// # Errors
    /// When it comes up.
    pub fn refused_start(&self, server: usize) -> Result<String> {
        let dir = self.hosts.data_dir(&self.names[server - 1]).to_string_lossy().into_owned();
        let mut process = self.hosts.start(server, "refused", &["server", "--data-dir", &dir])?;
        let status = process.end()?;
        ensure!(!status.success(), "a removed server ends well");
        Ok(process.said())
    }

    /// Has a host join anew, as another server.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn join_anew(&mut self, server: usize) -> Result<()> {
        self.names[server - 1].push_str("-new");
        self.join(server)
    }

    /// Lets nothing that a server says reach the others, or lets it again. It still hears them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn silence(&self, server: usize, silent: bool) -> Result<()> {
        let others: Vec<Ipv4Addr> =
            (1..=3).filter(|other| *other != server).map(|other| self.hosts.address(other)).collect();
        let netns = self.hosts.netns(server).to_owned();
        netns::within(&netns, move || others.iter().try_for_each(|other| netns::blackhole(*other, silent)))
    }

    /// Moves a server's data, while it does not run, to a small disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn small_disk(&self, server: usize) -> Result<SmallDisk> {
        let dir = self.hosts.data_dir(&self.names[server - 1]).join("store");
        let aside = dir.with_extension("aside");
        std::fs::rename(&dir, &aside)?;
        std::fs::create_dir(&dir)?;
        mount(Some("orlop-test"), &dir, Some("tmpfs"), MsFlags::empty(), Some(SMALL)).context("mounting")?;
        copy(&aside, &dir)?;
        std::fs::remove_dir_all(&aside)?;
        Ok(SmallDisk { dir })
    }
}

impl SmallDisk {
    /// Leaves no room.
    ///
    /// # Errors
    /// When it cannot be written at all.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast())?;
        let block = vec![1; 1 << 16];
        // Until it is full.
        while file.write_all(&block).is_ok() {}
        Ok(())
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast.partial")
    }

    /// Makes room.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn free(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Moves the data of a server that does not run back to the usual disk.
    ///
    /// # Errors
    /// When that fails.
    pub fn leave(self) -> Result<()> {
        let aside = self.dir.with_extension("aside");
        std::fs::create_dir(&aside)?;
        copy(&self.dir, &aside)?;
        umount2(&self.dir, MntFlags::empty()).context("unmounting")?;
        std::fs::remove_dir(&self.dir)?;
        Ok(std::fs::rename(&aside, &self.dir)?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left already, or the test has failed.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
