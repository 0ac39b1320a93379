//! Leader election over a Lease: who holds it leads; who stops renewing loses it.
//!
//! Clocks of different machines are never compared: a candidate measures by its own clock how long the record has stayed the same.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use rand::Rng;

use crate::clock::{Moment, Now};
use crate::object::ObjectKey;

/// How an election is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Lease.
    pub lease: ObjectKey,
    /// Who stands for election; unique among all candidates.
    pub identity: String,
    /// How long others wait before they take over a lease that is not renewed.
    pub lease_duration: Duration,
    /// After how long without a renewal the leader steps down by itself; shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// How often it is tried to take or renew the lease.
    pub retry_period: Duration,
}

/// What happened outside.
#[derive(Debug)]
pub enum Event {
    /// Answer to [`Action::Read`]: the Lease, or `None` when there is none.
    Read(Option<Box<Lease>>),
    /// Answer to [`Action::Create`] and [`Action::Update`]: the Lease as it was written.
    Written(Box<Lease>),
    /// A request failed, or another candidate was faster.
    Failed,
    /// The moment of [`Election::poll_timeout`] has come.
    Timeout,
    /// Step down now, because the process stops.
    Release,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Create it.
    Create(Box<Lease>),
    /// Replace it, if its resource version has not changed.
    Update(Box<Lease>),
}

/// Whether this candidate leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Someone else leads, or nobody.
    Follower {
        /// Who leads, as far as is known.
        leader: Option<String>,
    },
    /// This candidate leads.
    Leader {
        /// The Lease's transition count: writes of this term carry it.
        transitions: i32,
    },
}

/// A term of office: the Lease, who holds it, and how often it had changed hands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The Lease.
    pub lease: ObjectKey,
    /// Its holder.
    pub identity: String,
    /// Its transition count.
    pub transitions: i32,
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// `poll_action` will read the Lease.
    Start,
    /// An answer is awaited.
    Asked { write: bool },
    /// `poll_action` will hand this out.
    Write(Box<Action>),
    /// Until the next try.
    Waiting { until: Moment },
    /// Released: over.
    Stopped,
}

impl Eq for Action {}

/// The machine of one candidate.
#[derive(Debug)]
pub struct Election {
    config: Config,
    state: State,
    role: Role,
    /// The record as last seen, and when by our clock it was first seen so.
    seen: Option<(Lease, Moment)>,
    /// The last moment at which a renewal that succeeded was sent.
    renewed: Moment,
    sent: Moment,
}

// === impl Config ===

impl Config {
    /// client-go's periods: 15 s, 10 s, 2 s.
    pub fn new(lease: ObjectKey, identity: impl Into<String>) -> Self {
        Self {
            lease,
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

// === impl Held ===

impl Held {
    /// What the API server is told with each write, so that it can refuse those of a term that is over.
    pub fn fence(&self) -> String {
        format!("{}/{} {} {}", self.lease.namespace, self.lease.name, self.transitions, self.identity)
    }
}

// === impl Election ===

impl Election {
    /// A candidate that reads the Lease first.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Start,
            role: Role::Follower { leader: None },
            seen: None,
            renewed: Moment::ZERO,
            sent: Moment::ZERO,
        }
    }

    /// Whether this candidate leads. A leader must ask again after every `handle`: a missed deadline ends its term.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Now, rng: &mut impl Rng) {
        if self.state == State::Stopped {
            return;
        }
        match event {
            Event::Read(lease) => self.read(lease.map(|lease| *lease), now, rng),
            Event::Written(lease) => self.written(*lease, now, rng),
            Event::Failed => {
                // What we know of the record may be wrong now: read it before the next write.
                self.wait(now.moment, rng);
            }
            Event::Timeout => {
                if matches!(self.state, State::Waiting { until } if until <= now.moment) {
                    self.state = State::Start;
                }
            }
            Event::Release => self.release(now),
        }
        self.check_deadline(now.moment);
    }

    /// What to do next; `None`: wait for the answer or the timeout.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Start => {
                self.state = State::Asked { write: false };
                Some(Action::Read)
            }
            State::Write(action) => {
                self.state =
                    if self.released(&action) { State::Stopped } else { State::Asked { write: true } };
                self.sent = now.moment;
                Some(*action)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// When to send [`Event::Timeout`].
    pub fn poll_timeout(&self) -> Option<Moment> {
        let deadline = match self.role {
            Role::Leader { .. } => Some(self.renewed.saturating_add(self.config.renew_deadline)),
            Role::Follower { .. } => None,
        };
        let retry = match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        };
        [deadline, retry].into_iter().flatten().min()
    }

    fn read(&mut self, lease: Option<Lease>, now: Now, rng: &mut impl Rng) {
        if self.state != (State::Asked { write: false }) {
            return;
        }
        let Some(lease) = lease else {
            self.seen = None;
            self.state = State::Write(Box::new(Action::Create(Box::new(self.fresh(now.wall)))));
            return;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == lease.spec => *since,
            _ => now.moment,
        };
        let holder = holder(&lease).map(str::to_owned);
        let duration = lease_duration(&lease).unwrap_or(self.config.lease_duration);
        self.seen = Some((lease.clone(), since));
        let ours = holder.as_deref() == Some(self.config.identity.as_str());
        let expired = now.moment.saturating_sub(since) >= duration;
        if !ours {
            self.role = Role::Follower { leader: holder.clone() };
        }
        if ours || holder.is_none() || expired {
            self.state = State::Write(Box::new(Action::Update(Box::new(self.taken(lease, ours, now.wall)))));
        } else {
            self.wait(now.moment, rng);
        }
    }

    fn written(&mut self, lease: Lease, now: Now, rng: &mut impl Rng) {
        if self.state != (State::Asked { write: true }) {
            return;
        }
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        self.renewed = self.sent;
        self.role = Role::Leader { transitions };
        self.seen = Some((lease, now.moment));
        self.wait(now.moment, rng);
    }

    fn release(&mut self, now: Now) {
        let leading = matches!(self.role, Role::Leader { .. });
        self.role = Role::Follower { leader: None };
        self.state = State::Stopped;
        if let (true, Some((lease, _))) = (leading, &self.seen) {
            let mut lease = lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(now.wall));
                spec.acquire_time = Some(MicroTime(now.wall));
            }
            self.state = State::Write(Box::new(Action::Update(Box::new(lease))));
        }
    }

    fn released(&self, action: &Action) -> bool {
        matches!(action, Action::Update(lease) if holder(lease).is_none())
    }

    fn check_deadline(&mut self, now: Moment) {
        if matches!(self.role, Role::Leader { .. })
            && now.saturating_sub(self.renewed) >= self.config.renew_deadline
        {
            self.role = Role::Follower { leader: None };
        }
    }

    fn wait(&mut self, now: Moment, rng: &mut impl Rng) {
        let jitter = match self.role {
            Role::Leader { .. } => 0.0,
            Role::Follower { .. } => rng.random::<f64>() * 1.2,
        };
        self.state =
            State::Waiting { until: now.saturating_add(self.config.retry_period.mul_f64(1.0 + jitter)) };
    }

    fn fresh(&self, wall: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                namespace: Some(self.config.lease.namespace.to_string()),
                name: Some(self.config.lease.name.to_string()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.identity.clone()),
                lease_duration_seconds: Some(self.duration_seconds()),
                acquire_time: Some(MicroTime(wall)),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }

    fn taken(&self, mut lease: Lease, ours: bool, wall: Timestamp) -> Lease {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.config.identity.clone());
        spec.lease_duration_seconds = Some(self.duration_seconds());
        spec.renew_time = Some(MicroTime(wall));
        if !ours {
            spec.acquire_time = Some(MicroTime(wall));
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        lease
    }

    fn duration_seconds(&self) -> i32 {
        i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX)
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn lease_duration(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// One Lease and its candidates, in virtual time.
    struct World {
        lease: Option<Lease>,
        version: u64,
        now: Moment,
        rng: ChaCha8Rng,
    }

    impl World {
        fn new() -> Self {
            Self { lease: None, version: 0, now: Moment::ZERO, rng: ChaCha8Rng::seed_from_u64(5) }
        }

        fn now(&self) -> Now {
            let wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::try_from(self.now).expect("short");
            Now { moment: self.now, wall }
        }

        fn serve(&mut self, action: Action) -> Event {
            let write = match action {
                Action::Read => return Event::Read(self.lease.clone().map(Box::new)),
                Action::Create(_) if self.lease.is_some() => return Event::Failed,
                Action::Create(lease) => lease,
                Action::Update(lease) => {
                    let current =
                        self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
                    if current != lease.metadata.resource_version {
                        return Event::Failed;
                    }
                    lease
                }
            };
            self.version += 1;
            let mut lease = *write;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease.clone());
            Event::Written(Box::new(lease))
        }

        /// Lets a candidate run for one step; `reachable`: its requests arrive.
        fn step(&mut self, candidate: &mut Election, reachable: bool) {
            let now = self.now();
            candidate.handle(Event::Timeout, now, &mut self.rng);
            while let Some(action) = candidate.poll_action(now) {
                let answer = if reachable { self.serve(action) } else { Event::Failed };
                candidate.handle(answer, now, &mut self.rng);
            }
        }

        fn advance(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    fn candidate(identity: &str) -> Election {
        Election::new(Config::new(ObjectKey::new("kube-system", "x"), identity))
    }

    fn leads(candidate: &Election) -> bool {
        matches!(candidate.role(), Role::Leader { .. })
    }

    #[test]
    fn the_first_leads_and_keeps_the_lease_while_it_renews() {
        let (mut world, mut a, mut b) = (World::new(), candidate("a"), candidate("b"));
        for _ in 0..100 {
            world.step(&mut a, true);
            world.step(&mut b, true);
            assert_eq!(a.role(), &Role::Leader { transitions: 0 });
            assert!(!leads(&b));
            world.advance(1);
        }
        assert_eq!(b.role(), &Role::Follower { leader: Some("a".into()) });
    }

    #[test]
    fn a_leader_that_is_cut_off_steps_down_before_another_takes_over() {
        let (mut world, mut a, mut b) = (World::new(), candidate("a"), candidate("b"));
        let mut taken_over = None;
        for second in 0..60 {
            world.step(&mut a, second < 5);
            world.step(&mut b, true);
            assert!(!(leads(&a) && leads(&b)), "two leaders at {second}");
            if leads(&b) && taken_over.is_none() {
                taken_over = Some(second);
            }
            world.advance(1);
        }
        let taken_over = taken_over.expect("b takes over");
        assert!((19..=26).contains(&taken_over), "{taken_over}");
        assert_eq!(b.role(), &Role::Leader { transitions: 1 });
        for _ in 0..10 {
            world.step(&mut a, true);
            world.step(&mut b, true);
            world.advance(1);
        }
        assert_eq!(a.role(), &Role::Follower { leader: Some("b".into()) });
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let (mut world, mut a, mut b) = (World::new(), candidate("a"), candidate("b"));
        world.step(&mut a, true);
        world.step(&mut b, true);
        let now = world.now();
        a.handle(Event::Release, now, &mut world.rng);
        let action = a.poll_action(now).expect("a gives the lease back");
        let _ = world.serve(action);
        assert!(!leads(&a));
        assert_eq!(a.poll_action(now), None);
        world.advance(5);
        world.step(&mut b, true);
        assert_eq!(b.role(), &Role::Leader { transitions: 1 });
    }

    #[test]
    fn of_two_that_write_at_once_one_loses() {
        let (mut world, mut a, mut b) = (World::new(), candidate("a"), candidate("b"));
        let now = world.now();
        for one in [&mut a, &mut b] {
            assert_eq!(one.poll_action(now), Some(Action::Read));
            one.handle(Event::Read(None), now, &mut world.rng);
        }
        world.step(&mut a, true);
        world.step(&mut b, true);
        assert!(leads(&a) && !leads(&b));
    }
}
