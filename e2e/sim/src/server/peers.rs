//! What servers send each other: messages, which may be lost, and whole states, of which the sender learns how they
//! fared.

use std::rc::Rc;

use raft::eraftpb::{Message, MessageType};
use store_core::checkpoint::{self, Image, Texts};
use store_core::node::Event;

use super::{Server, Trap};
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Time};

/// The share of lost messages whose loss the sender notices, as it does when a connection breaks.
const NOTICED: f64 = 0.2;
/// The share of states that break off under way.
const BROKEN: f64 = 0.1;
/// The longest that a state is under way.
const STATE_TAKES: Time = SECOND;

impl Server {
    pub(super) fn send(self: &Rc<Self>, messages: Vec<Message>) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        for message in messages {
            let Some(to) = cluster.server(message.to) else { continue };
            let delays = cluster.network.delays(self.place(), to.place());
            if delays.is_empty() && self.sim.chance(NOTICED) {
                self.later(self.sim.between(MS, SECOND / 2), Event::Unreachable { member: message.to });
            }
            let kind = message.get_msg_type();
            for delay in delays {
                let (from, to, message) = (self.clone(), to.clone(), message.clone());
                self.sim.after(delay, move || from.deliver(&to, message));
            }
            if let Some((_, trap)) = self.ambush.get().filter(|(awaited, _)| *awaited == kind) {
                self.ambush.set(None);
                self.fall_into(trap, kind);
            }
        }
    }

    /// What is under way still arrives: power comes back soon enough for that, and cuts are for what is said later.
    fn fall_into(self: &Rc<Self>, trap: Trap, kind: MessageType) {
        let (server, scope) = (self.clone(), self.scope());
        self.sim.after(self.sim.between(1, MS), move || {
            if server.scope() != scope {
                return;
            }
            server.sim.note(format_args!("server {} falls into {trap:?} after {kind:?}", server.member));
            let again = server.clone();
            match (trap, server.cluster.upgrade()) {
                (Trap::PowerCut, _) => {
                    server.cut_power();
                    server.sim.after(server.sim.between(MS, SECOND / 4), move || again.start());
                }
                (Trap::CutOff, Some(cluster)) => cluster.cut_off(&server, 10 * SECOND),
                (Trap::CutOff, None) => {}
            }
        });
    }

    fn deliver(self: &Rc<Self>, to: &Rc<Server>, message: Message) {
        if to.scope().is_none() {
            return self.later(MS, Event::Unreachable { member: message.to });
        }
        if self.is_refused_by(to) {
            return;
        }
        to.sim.note(format_args!(
            "{} -> {} {:?} term {} index {} commit {} entries {}{}",
            message.from,
            message.to,
            message.get_msg_type(),
            message.term,
            message.index,
            message.commit,
            message.entries.len(),
            if message.reject { " rejected" } else { "" }
        ));
        to.tell(Event::Message(Box::new(message)));
    }

    /// Whether a peer knows that this member was removed: then it takes nothing from it, and says why.
    fn is_refused_by(self: &Rc<Self>, peer: &Rc<Server>) -> bool {
        let members_of = |server: &Server| {
            let running = server.running.borrow();
            running.as_ref().is_some_and(|it| it.host.node().state().members().was_removed(self.member))
        };
        let refused = members_of(peer);
        let cluster = self.cluster.upgrade();
        let delay =
            cluster.filter(|_| refused).and_then(|it| it.network.delay_in_order(peer.place(), self.place()));
        if let Some(delay) = delay {
            self.later(delay, Event::Removed);
        }
        refused
    }

    pub(super) fn send_state(self: &Rc<Self>, message: Box<Message>, image: Image) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        let under_way = self.sim.between(MS, STATE_TAKES);
        let to = cluster.server(message.to);
        let delay = to.as_ref().and_then(|to| cluster.network.delay_in_order(self.place(), to.place()));
        let (Some(to), Some(delay)) = (to, delay) else {
            return self.later(under_way, Event::StateSent { member: message.to, ok: false });
        };
        self.sim.note(format_args!("{} -> {} a state at {}", self.member, to.member, image.applied.index));
        let (from, scope) = (self.clone(), self.scope());
        self.sim.after(delay + under_way, move || {
            // It breaks off when its sender ends.
            let ok = from.scope() == scope && from.hand_over(&cluster, &to, message, image);
            from.later(MS, Event::StateSent { member: to.member, ok });
        });
    }

    /// Has a peer take a state in. Returns whether it has it, as far as the sender learns.
    fn hand_over(
        self: &Rc<Self>,
        cluster: &Cluster,
        to: &Rc<Server>,
        message: Box<Message>,
        image: Image,
    ) -> bool {
        if to.is_paused() || cluster.network.is_cut(self.place(), to.place()) || self.is_refused_by(to) {
            return false;
        }
        let receiver = {
            let mut running = to.running.borrow_mut();
            let Some(running) = running.as_mut() else { return false };
            running.host.receiver(checkpoint::VERSION)
        };
        let mut source = Texts::new(image);
        let mut texts = std::iter::from_fn(|| source.next_text(Vec::new())).map(Into::into);
        let broken = self.sim.chance(BROKEN);
        let received = receiver.and_then(|mut receiver| {
            if broken {
                // What has come so far stays on the disk, under no name that counts.
                return texts.next().map_or(Ok(()), |text| receiver.push(&text)).map(|()| None);
            }
            texts.try_for_each(|text| receiver.push(&text))?;
            receiver.finish().map(Some)
        });
        match received {
            Ok(Some(received)) => {
                to.tell(Event::Install { message, received });
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.sim.note(format_args!("server {} cannot take a state in: {error}", to.member));
                false
            }
        }
    }

    /// Tells this run of the server something after a while.
    fn later(self: &Rc<Self>, delay: Time, event: Event) {
        let (server, scope) = (self.clone(), self.scope());
        self.sim.after(delay, move || {
            if server.scope() == scope {
                server.tell(event);
            }
        });
    }
}
