//! A group of hosts on simulated disks, with a network that delays, loses, repeats and cuts, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::eraftpb::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use store_core::checkpoint::{self, Texts};
use store_core::crypt::{Key, Keys};
use store_core::disk::SimDisk;
use store_core::host::{Host, HostSettings, Output, Stopped};
use store_core::members::Member;
use store_core::node::{Change, ChangeRefusal, Event, Refusal, Settings};
use store_core::recovery::Start;
use store_core::{Outcome, Txn};

/// What became of a ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Outcome(Outcome),
    /// A read, confirmed at this revision.
    Confirmed(u64),
    Refused(Refusal),
    Changed(Result<u64, ChangeRefusal>),
}

pub struct Machine {
    pub host: Option<Host>,
    pub disk: SimDisk,
    pub stopped: Option<String>,
    /// How often the whole state was replaced, and the revision that was published last.
    pub replaced: usize,
    pub published: u64,
    /// The number of the last run, as its clock gives it.
    pub boots: u64,
    start: Start,
}

/// What the network does to messages.
#[derive(Clone, Debug)]
pub struct Weather {
    pub loss: f64,
    pub repeat: f64,
    pub delay_ms: i64,
}

enum Parcel {
    Message(Message),
    State { message: Box<Message>, texts: Vec<Vec<u8>> },
    Sent { of: u64, ok: bool },
    Removed,
}

pub struct Group {
    pub machines: BTreeMap<u64, Machine>,
    pub now_ms: i64,
    pub weather: Weather,
    /// From whom to whom nothing gets through.
    pub cut: BTreeSet<(u64, u64)>,
    pub told: BTreeMap<u64, Told>,
    pub settings: Settings,
    under_way: BTreeMap<(i64, u64), (u64, u64, Parcel)>,
    next_parcel: u64,
    next_ticket: u64,
    rng: ChaCha20Rng,
}

pub const CALM: Weather = Weather { loss: 0.0, repeat: 0.0, delay_ms: 3 };
pub const STORM: Weather = Weather { loss: 0.1, repeat: 0.1, delay_ms: 30 };

impl Group {
    /// One member, which leads.
    pub fn new(seed: u64) -> Self {
        let mut settings = Settings::new(1);
        settings.checkpoint_log_bytes = 20_000;
        settings.catch_up_bytes = 4000;
        settings.mark_ticks = 10;
        let mut group = Self {
            machines: BTreeMap::new(),
            now_ms: 0,
            weather: CALM,
            cut: BTreeSet::new(),
            told: BTreeMap::new(),
            settings,
            under_way: BTreeMap::new(),
            next_parcel: 0,
            next_ticket: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
        };
        group.place(1, Start::First(member(1)));
        group
    }

    /// `count` voters.
    pub fn of(count: u64, seed: u64) -> Self {
        let mut group = Self::new(seed);
        for id in 2..=count {
            let ticket = group.change(1, Change::Add(member(id)));
            assert_eq!(group.wait_for(ticket), Told::Changed(Ok(id)));
            group.place(id, Start::Join(member(id)));
            group.until(10_000, |group| group.voters(1).contains(&id));
        }
        // A member that has not heard yet who votes cannot elect on its own.
        let all = |group: &Self| group.ids().into_iter().all(|id| group.voters(id).len() == count as usize);
        group.until(10_000, |group| all(group) && group.is_even());
        group
    }

    /// A machine with an empty disk.
    pub fn place(&mut self, id: u64, start: Start) {
        let machine = Machine {
            host: None,
            disk: SimDisk::new(),
            stopped: None,
            replaced: 0,
            published: 0,
            boots: 0,
            start,
        };
        self.machines.insert(id, machine);
        self.boot(id);
    }

    pub fn boot(&mut self, id: u64) {
        let settings = Settings { member: id, ..self.settings };
        let machine = self.machines.get_mut(&id).expect("a machine");
        machine.boots += 1;
        let boot = machine.boots;
        let mut seed = [id as u8; 32];
        seed[1] = boot as u8;
        seed[2] = self.rng.random();
        let settings =
            HostSettings { node: settings, start: machine.start.clone(), segment_bytes: 1 << 17, boot, seed };
        let keys = Keys::new(Key::new(id, [id as u8; 32]), vec![]);
        match Host::open(Arc::new(machine.disk.clone()), keys, &settings, self.now_ms) {
            Ok((mut host, _)) => {
                let outputs = host.take_outputs();
                let first = outputs.iter().find_map(|output| match output {
                    Output::Publish(batch) => Some(batch.events.first()?.revision - 1),
                    _ => None,
                });
                machine.published = first.unwrap_or(host.snapshot().revision());
                machine.host = Some(host);
                outputs.into_iter().for_each(|output| self.carry_out(id, output));
                self.perform(id);
            }
            Err(error) => machine.stopped = Some(error.to_string()),
        }
    }

    /// Stops a machine as kill -9 does, or, with `power`, as a power cut does.
    pub fn crash(&mut self, id: u64, power: bool) {
        let machine = self.machines.get_mut(&id).expect("a machine");
        machine.host = None;
        if power {
            machine.disk.power_cut(&mut self.rng);
        }
    }

    pub fn host(&self, id: u64) -> &Host {
        self.machines[&id].host.as_ref().expect("a running host")
    }

    pub fn commit(&mut self, id: u64, txn: Txn) -> u64 {
        let ticket = self.ticket();
        let now = self.now_ms;
        self.with(id, |host| host.commit(vec![(ticket, txn)], now));
        ticket
    }

    pub fn read(&mut self, id: u64) -> u64 {
        let ticket = self.ticket();
        self.tell(id, Event::Read { ticket });
        ticket
    }

    pub fn change(&mut self, id: u64, change: Change) -> u64 {
        let ticket = self.ticket();
        self.tell(id, Event::Change { ticket, change });
        ticket
    }

    /// Writes, and waits until it is acknowledged.
    pub fn put(&mut self, id: u64, key: &str, value: &str) {
        let ticket = self.commit(id, Txn::put(key.to_owned(), value.to_owned()));
        let told = self.wait_for(ticket);
        assert!(matches!(told, Told::Outcome(Outcome::Committed { .. })), "{key}: {told:?}");
    }

    pub fn wait_for(&mut self, ticket: u64) -> Told {
        self.until(30_000, |group| group.told.contains_key(&ticket));
        self.told[&ticket].clone()
    }

    /// Lets time pass until something holds.
    pub fn until(&mut self, ms: i64, holds: impl Fn(&Self) -> bool) {
        let end = self.now_ms + ms;
        while !holds(self) {
            assert!(self.now_ms < end, "not within {ms} ms: {}", self.describe());
            self.pass(1);
        }
    }

    pub fn pass(&mut self, ms: i64) {
        for _ in 0..ms {
            self.now_ms += 1;
            while let Some(entry) = self.under_way.first_entry()
                && entry.key().0 <= self.now_ms
            {
                let (from, to, parcel) = entry.remove();
                self.deliver(from, to, parcel);
            }
            for id in self.ids() {
                let due = self.machines[&id].host.as_ref().and_then(|host| host.node().poll_timeout());
                if due.is_some_and(|at| at <= self.now_ms) {
                    self.tell(id, Event::Tick);
                }
            }
        }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    /// The leader that most of the running members follow.
    pub fn leader(&self) -> Option<u64> {
        let running = self.machines.iter().filter_map(|(id, machine)| Some((*id, machine.host.as_ref()?)));
        let leaders = running.filter(|(_, host)| host.node().leads());
        leaders.max_by_key(|(_, host)| host.node().term()).map(|(id, _)| id)
    }

    pub fn wait_for_leader(&mut self) -> u64 {
        self.until(10_000, |group| group.leader().is_some());
        self.leader().expect("a leader")
    }

    pub fn other_than(&self, id: u64) -> u64 {
        self.ids().into_iter().find(|other| *other != id).expect("another")
    }

    pub fn voters(&self, id: u64) -> Vec<u64> {
        self.host(id).node().conf_state().voters.clone()
    }

    /// Cuts a member off from all others.
    pub fn isolate(&mut self, id: u64) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Whether all running members hold the same state.
    pub fn is_even(&self) -> bool {
        let hosts = self.machines.values().filter_map(|machine| machine.host.as_ref());
        let states: BTreeSet<_> =
            hosts.map(|host| (host.snapshot().revision(), host.snapshot().hash())).collect();
        states.len() == 1
    }

    pub fn describe(&self) -> String {
        let lines = self.machines.iter().map(|(id, machine)| {
            let state = match &machine.host {
                Some(host) => format!(
                    "leader {:?} term {} applied {:?} revision {} {:?}",
                    host.node().leader(),
                    host.node().term(),
                    host.node().state().applied(),
                    host.snapshot().revision(),
                    host.node().conf_state(),
                ),
                None => format!("down {:?}", machine.stopped),
            };
            format!("{id}: {state}\n")
        });
        lines.collect()
    }

    pub fn tell(&mut self, id: u64, event: Event) {
        let now = self.now_ms;
        self.with(id, |host| host.handle(event, now));
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn with(&mut self, id: u64, act: impl FnOnce(&mut Host) -> Result<(), Stopped>) {
        let machine = self.machines.get_mut(&id).expect("a machine");
        let Some(host) = &mut machine.host else { return };
        let done = act(host);
        self.perform(id);
        if let Err(stopped) = done {
            let machine = self.machines.get_mut(&id).expect("a machine");
            machine.host = None;
            machine.stopped = Some(stopped.to_string());
        }
    }

    fn perform(&mut self, id: u64) {
        loop {
            let machine = self.machines.get_mut(&id).expect("a machine");
            let Some(host) = &mut machine.host else { return };
            let outputs = host.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.carry_out(id, output);
            }
        }
    }

    fn carry_out(&mut self, id: u64, output: Output) {
        let machine = self.machines.get_mut(&id).expect("a machine");
        match output {
            Output::Publish(batch) => {
                for event in &batch.events {
                    assert_eq!(event.revision, machine.published + 1, "member {id} missed an event");
                    machine.published = event.revision;
                }
                for (ticket, outcome) in batch.answers {
                    let before = self.told.insert(ticket, Told::Outcome(outcome));
                    assert_eq!(before, None, "a ticket is answered once");
                }
            }
            Output::Replace(snapshot) => {
                machine.replaced += 1;
                machine.published = snapshot.revision();
            }
            Output::Confirm(tickets) => {
                let revision = machine.published;
                self.told.extend(tickets.into_iter().map(|ticket| (ticket, Told::Confirmed(revision))));
            }
            Output::Refuse(refused) => {
                for (ticket, why) in refused {
                    let before = self.told.insert(ticket, Told::Refused(why));
                    assert_eq!(before, None, "a ticket is answered once");
                }
            }
            Output::DiskFull(tickets) => panic!("no room for {tickets:?}"),
            Output::Changed { ticket, result } => {
                self.told.insert(ticket, Told::Changed(result));
            }
            Output::Send(messages) => {
                for message in messages {
                    let to = message.to;
                    self.post(id, to, Parcel::Message(message));
                }
            }
            Output::SendState { message, image } => {
                let to = message.to;
                let mut source = Texts::new(*image);
                let texts = std::iter::from_fn(|| source.next_text(Vec::new())).collect();
                self.post(id, to, Parcel::State { message, texts });
            }
            Output::Job(job) => {
                let done = job.run();
                if let Some(event) = done.event {
                    let now = self.now_ms;
                    if let Some(host) = &mut machine.host
                        && let Err(stopped) = host.handle(event, now)
                    {
                        machine.stopped = Some(stopped.to_string());
                        machine.host = None;
                    }
                }
            }
        }
    }

    fn post(&mut self, from: u64, to: u64, parcel: Parcel) {
        let lost = self.rng.random_bool(self.weather.loss);
        if let Parcel::Message(message) = &parcel
            && self.rng.random_bool(self.weather.repeat)
        {
            let again = Parcel::Message(message.clone());
            self.send_off(from, to, again);
        }
        match parcel {
            // Whoever carries a state knows whether it came through.
            Parcel::State { message, .. } if lost => {
                let to = message.to;
                self.send_off(to, from, Parcel::Sent { of: to, ok: false });
            }
            _ if lost => {}
            parcel => self.send_off(from, to, parcel),
        }
    }

    fn send_off(&mut self, from: u64, to: u64, parcel: Parcel) {
        let slow = if matches!(parcel, Parcel::State { .. }) { 50 } else { 1 };
        let at = self.now_ms + slow + self.rng.random_range(0..=self.weather.delay_ms);
        self.next_parcel += 1;
        self.under_way.insert((at, self.next_parcel), (from, to, parcel));
    }

    fn deliver(&mut self, from: u64, to: u64, parcel: Parcel) {
        let running = self.machines.get(&to).is_some_and(|machine| machine.host.is_some());
        match parcel {
            Parcel::Sent { of, ok } => self.tell(to, Event::StateSent { member: of, ok }),
            Parcel::Removed => self.tell(to, Event::Removed),
            Parcel::State { message, .. } if !running || self.cut.contains(&(from, to)) => {
                let to = message.to;
                self.send_off(to, from, Parcel::Sent { of: to, ok: false });
            }
            _ if !running || self.cut.contains(&(from, to)) => {}
            _ if self.host(to).node().state().members().was_removed(from) => {
                self.send_off(to, from, Parcel::Removed);
            }
            Parcel::Message(message) => self.tell(to, Event::Message(Box::new(message))),
            Parcel::State { message, texts } => {
                let machine = self.machines.get_mut(&to).expect("a machine");
                let host = machine.host.as_mut().expect("a running host");
                let received = host.receiver(checkpoint::VERSION).and_then(|mut receiver| {
                    texts.into_iter().try_for_each(|text| receiver.push(&text.into()))?;
                    receiver.finish()
                });
                let received = match received {
                    Ok(received) => received,
                    Err(error) => {
                        machine.host = None;
                        machine.stopped = Some(error.to_string());
                        self.send_off(to, from, Parcel::Sent { of: to, ok: false });
                        return;
                    }
                };
                self.tell(to, Event::Install { message, received });
                self.send_off(to, from, Parcel::Sent { of: to, ok: true });
            }
        }
    }
}

pub fn member(id: u64) -> Member {
    Member { name: format!("member-{id}"), address: format!("host-{id}:6443") }
}
