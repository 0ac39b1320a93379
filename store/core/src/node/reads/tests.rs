//! Who is asked how far reads must see, and which answers count.

use raft::eraftpb::Entry;

use super::super::Event;
use super::super::tests::Group;
use super::*;

/// What a member does: what it sends, and the readers that it answers.
fn pump(node: &mut Node, now_ms: i64) -> (Vec<Message>, Vec<u64>) {
    let (mut sent, mut confirmed) = (Vec::new(), Vec::new());
    while let Some(action) = node.poll_action() {
        match action {
            Action::Send(messages) => sent.extend(messages),
            Action::Sync { number } => node.handle(Event::Persisted { number }, now_ms),
            Action::Confirm { tickets } => confirmed.extend(tickets),
            _ => {}
        }
    }
    (sent, confirmed)
}

fn told(group: &mut Group, member: u64, event: Event) -> (Vec<Message>, Vec<u64>) {
    let now_ms = group.now_ms;
    let node = group.nodes.get_mut(&member).unwrap();
    node.handle(event, now_ms);
    pump(node, now_ms)
}

/// A group that has settled, its leader and the others.
fn group(members: u64) -> (Group, u64, Vec<u64>) {
    let mut group = Group::new(members);
    group.pass(2000);
    let leader = group.leader().unwrap();
    (group, leader, (1..=members).filter(|member| *member != leader).collect())
}

fn kinds(messages: &[Message]) -> Vec<(MessageType, u64)> {
    let mut kinds: Vec<_> = messages.iter().map(|message| (message.get_msg_type(), message.to)).collect();
    kinds.sort_unstable_by_key(|(_, to)| *to);
    kinds
}

fn letter(message: &Message) -> Event {
    Event::Message(Box::new(message.clone()))
}

#[test]
fn a_voter_of_three_is_answered_at_once() {
    let (mut group, leader, others) = group(3);
    group.tell(leader, Event::Commit { ticket: 1, txn: crate::Txn::put("k", "v") });
    let (asked, confirmed) = told(&mut group, others[0], Event::Read { ticket: 7 });
    assert_eq!((kinds(&asked), confirmed), (vec![(MessageType::MsgReadIndex, leader)], vec![]));
    let (answered, _) = told(&mut group, leader, letter(&asked[0]));
    assert_eq!(kinds(&answered), [(MessageType::MsgReadIndexResp, others[0])]);
    assert_eq!(told(&mut group, others[0], letter(&answered[0])), (vec![], vec![7]));
}

#[test]
fn a_question_from_another_term_or_in_a_group_of_five_is_put_to_the_others() {
    for (members, term, is_answered) in [(3, 0, true), (3, -1, false), (3, 1, false), (5, 0, false)] {
        let (mut group, leader, others) = group(members);
        let term = group.nodes[&leader].term().saturating_add_signed(term);
        let question = Question { number: 1, boot: 1, member: others[0], term };
        let entry = Entry { data: question.encode().into(), ..Entry::default() };
        let mut message = Message { from: others[0], to: leader, ..Message::default() };
        message.set_msg_type(MessageType::MsgReadIndex);
        message.set_entries(vec![entry].into());
        let (sent, _) = told(&mut group, leader, letter(&message));
        let expected: Vec<_> = match is_answered {
            true => vec![(MessageType::MsgReadIndexResp, others[0])],
            false => others.iter().map(|other| (MessageType::MsgHeartbeat, *other)).collect(),
        };
        assert_eq!(kinds(&sent), expected, "{members} members, term {term}");
    }
}

#[test]
fn an_answer_to_a_run_before_is_not_taken_for_one_to_this() {
    let (mut group, leader, others) = group(3);
    let (asked, _) = told(&mut group, others[0], Event::Read { ticket: 7 });
    let (answered, _) = told(&mut group, leader, letter(&asked[0]));
    let mut earlier = answered[0].clone();
    let mut question = Question::decode(&earlier.entries[0].data).unwrap();
    question.boot -= 1;
    earlier.mut_entries()[0].data = question.encode().into();
    assert_eq!(told(&mut group, others[0], letter(&earlier)), (vec![], vec![]));
    assert_eq!(told(&mut group, others[0], letter(&answered[0])), (vec![], vec![7]));
}

#[test]
fn a_leader_asks_who_answered_last_and_with_the_next_tick_everybody() {
    let (mut group, leader, others) = group(3);
    let (asked, _) = told(&mut group, leader, Event::Read { ticket: 1 });
    let everybody = others.iter().map(|other| (MessageType::MsgHeartbeat, *other));
    assert_eq!(kinds(&asked), everybody.clone().collect::<Vec<_>>(), "nobody has answered yet");
    let to = |asked: &[Message], member| letter(asked.iter().find(|message| message.to == member).unwrap());
    let (answer, _) = told(&mut group, others[1], to(&asked, others[1]));
    assert_eq!(told(&mut group, leader, letter(&answer[0])), (vec![], vec![1]));

    let (asked, _) = told(&mut group, leader, Event::Read { ticket: 2 });
    assert_eq!(kinds(&asked), [(MessageType::MsgHeartbeat, others[1])]);
    group.now_ms += 50;
    let (asked, _) = told(&mut group, leader, Event::Tick);
    assert_eq!(kinds(&asked), everybody.collect::<Vec<_>>(), "who answered last does not answer now");
    let (answer, _) = told(&mut group, others[0], to(&asked, others[0]));
    assert_eq!(told(&mut group, leader, letter(&answer[0])), (vec![], vec![2]));
    let (asked, _) = told(&mut group, leader, Event::Read { ticket: 3 });
    assert_eq!(kinds(&asked), [(MessageType::MsgHeartbeat, others[0])]);
}
