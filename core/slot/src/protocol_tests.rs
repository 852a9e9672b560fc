//! Two owners, one store, any interleaving of commits that succeed, fail, or leave their result unknown.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the store does with one commit.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Committed,
    Refused,
    UnknownButCommitted,
    UnknownAndLost,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Open { node: usize, epoch_bump: bool },
    Write { node: usize, fate: Fate },
    Retry { node: usize, fate: Fate },
    Replicated { node: usize, up_to: u64 },
    Carried { node: usize, up_to: u64 },
    Flush { node: usize, fate: Fate },
}

#[derive(Default)]
struct Store {
    header: Option<Header>,
    log: BTreeMap<LogIndex, BatchId>,
}

#[derive(Default)]
struct Node {
    protocol: Option<Protocol>,
    proposal: Option<Proposal>,
    unknown: bool,
    /// Which opening of the slot this is, counted over both nodes.
    opening: u64,
}

#[derive(Default)]
struct World {
    openings: u64,
    /// The latest opening that has committed.
    committed_by: u64,
    store: Store,
    nodes: [Node; 2],
    epoch: Epoch,
    tokens: u8,
    batches: u64,
    acknowledged: BTreeMap<LogIndex, BatchId>,
    pending: BTreeMap<LogIndex, BatchId>,
    carried_max: LogIndex,
    with_replica: bool,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Open { node, epoch_bump } => self.open(node, epoch_bump),
            Step::Write { node, fate } => self.write(node, fate),
            Step::Retry { node, fate } => {
                if self.nodes[node].unknown {
                    self.commit(node, fate);
                }
            }
            Step::Replicated { node, up_to } => {
                let Some(protocol) = &mut self.nodes[node].protocol else {
                    return;
                };
                let up_to = up_to.min(protocol.last_index());
                let raised = protocol.replicated(1, up_to);
                self.acknowledge(raised);
            }
            Step::Carried { node, up_to } => {
                let Some(protocol) = &mut self.nodes[node].protocol else {
                    return;
                };
                protocol.carried(up_to);
                assert!(
                    protocol.carried_index() <= protocol.high_watermark()
                        || up_to == 0
                        || protocol.carried_index() <= self.carried_max
                );
                self.carried_max = self.carried_max.max(protocol.carried_index());
            }
            Step::Flush { node, fate } => self.flush(node, fate),
        }
        self.check();
    }

    fn open(&mut self, node: usize, epoch_bump: bool) {
        if epoch_bump || self.epoch == 0 {
            self.epoch += 1;
        }
        self.tokens = self.tokens.wrapping_add(1);
        let grant = Grant {
            epoch: self.epoch,
            owner: [self.tokens; 16],
        };
        let replicas = self.with_replica.then_some(1);
        let Ok((protocol, header)) = Protocol::open(self.store.header.as_ref(), grant, replicas, 4) else {
            return;
        };
        self.store.header = Some(header);
        self.openings += 1;
        self.nodes[node] = Node {
            protocol: Some(protocol),
            opening: self.openings,
            ..Node::default()
        };
        if !self.with_replica {
            self.pending.clear();
        }
    }

    fn write(&mut self, node: usize, fate: Fate) {
        let Some(protocol) = &mut self.nodes[node].protocol else {
            return;
        };
        if self.nodes[node].unknown {
            return;
        }
        self.batches += 1;
        let mut batch_id = [0; 16];
        batch_id[..8].copy_from_slice(&self.batches.to_be_bytes());
        self.nodes[node].proposal = Some(protocol.propose(batch_id));
        self.commit(node, fate);
    }

    fn commit(&mut self, node: usize, fate: Fate) {
        let Node {
            protocol: Some(protocol),
            proposal: Some(proposal),
            unknown,
            opening,
        } = &mut self.nodes[node]
        else {
            return;
        };
        match protocol.verdict(self.store.header.as_ref()) {
            Verdict::Fenced(_) => {
                self.nodes[node] = Node::default();
                return;
            }
            Verdict::AlreadyCommitted => {
                *unknown = false;
                let (index, batch_id) = (proposal.index, proposal.batch_id);
                let raised = protocol.committed();
                self.pending.insert(index, batch_id);
                self.acknowledge(raised);
                return;
            }
            Verdict::Proceed => {}
        }
        if matches!(fate, Fate::Committed | Fate::UnknownButCommitted) {
            assert!(*opening >= self.committed_by, "a fenced owner has committed");
            self.committed_by = *opening;
            let before = self.store.log.insert(proposal.index, proposal.batch_id);
            assert_eq!(before, None, "an entry was overwritten");
            self.store.header = Some(proposal.header.clone());
            if let Some(trim) = &proposal.trim {
                assert!(
                    trim.end <= proposal.header.carried_index + 1,
                    "trimmed above the cursor"
                );
                for index in trim.clone() {
                    assert!(self.store.log.remove(&index).is_some(), "trimmed a hole");
                }
            }
        }
        match fate {
            Fate::Committed => {
                *unknown = false;
                let (index, batch_id) = (proposal.index, proposal.batch_id);
                let raised = protocol.committed();
                self.pending.insert(index, batch_id);
                self.acknowledge(raised);
            }
            // An unknown commit that is refused when it is tried again was not committed: the verdict said Proceed.
            Fate::Refused => {
                *unknown = false;
                protocol.not_committed();
            }
            Fate::UnknownButCommitted | Fate::UnknownAndLost => *unknown = true,
        }
    }

    fn flush(&mut self, node: usize, fate: Fate) {
        let Some(protocol) = &mut self.nodes[node].protocol else {
            return;
        };
        let Some(header) = protocol.flush() else {
            return;
        };
        match protocol.verdict(self.store.header.as_ref()) {
            Verdict::Proceed => {}
            Verdict::Fenced(_) | Verdict::AlreadyCommitted => return,
        }
        if matches!(fate, Fate::Committed | Fate::UnknownButCommitted) {
            self.store.header = Some(header.clone());
        }
        if matches!(fate, Fate::Committed) {
            protocol.flushed(&header);
        }
    }

    fn acknowledge(&mut self, high_watermark: Option<LogIndex>) {
        let Some(high_watermark) = high_watermark else {
            return;
        };
        let above = self.pending.split_off(&(high_watermark + 1));
        let acknowledged = std::mem::replace(&mut self.pending, above);
        for (index, batch_id) in acknowledged {
            let before = self.acknowledged.insert(index, batch_id);
            assert!(
                before.is_none_or(|before| before == batch_id),
                "two batches acknowledged at {index}"
            );
        }
    }

    fn check(&self) {
        let Some(header) = &self.store.header else {
            return;
        };
        for (index, batch_id) in &self.acknowledged {
            if *index >= header.first_index {
                assert_eq!(
                    self.store.log.get(index),
                    Some(batch_id),
                    "an acknowledged entry is lost"
                );
            }
        }
        let indices: Vec<_> = self.store.log.keys().copied().collect();
        let expected: Vec<_> = (header.first_index..=header.last_index).collect();
        assert_eq!(indices, expected, "the log has a hole");
        let mut batches: Vec<_> = self.store.log.values().collect();
        batches.sort_unstable();
        batches.dedup();
        assert_eq!(batches.len(), self.store.log.len(), "a batch was committed twice");
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Committed),
        1 => Just(Fate::Refused),
        2 => Just(Fate::UnknownButCommitted),
        2 => Just(Fate::UnknownAndLost),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..2_usize;
    prop_oneof![
        1 => (node.clone(), any::<bool>()).prop_map(|(node, epoch_bump)| Step::Open { node, epoch_bump }),
        8 => (node.clone(), fate()).prop_map(|(node, fate)| Step::Write { node, fate }),
        4 => (node.clone(), fate()).prop_map(|(node, fate)| Step::Retry { node, fate }),
        2 => (node.clone(), 0..400_u64).prop_map(|(node, up_to)| Step::Replicated { node, up_to }),
        2 => (node.clone(), 0..400_u64).prop_map(|(node, up_to)| Step::Carried { node, up_to }),
        1 => (node, fate()).prop_map(|(node, fate)| Step::Flush { node, fate }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_interleaving_loses_doubles_or_overwrites_an_entry(
        with_replica: bool,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut world = World { with_replica, ..World::default() };
        for step in steps {
            world.step(step);
        }
    }
}

#[test]
fn an_owner_that_was_replaced_cannot_commit() {
    let grant = |token| Grant {
        epoch: 1,
        owner: [token; 16],
    };
    let (mut old, header) = Protocol::open(None, grant(1), [], 4).unwrap();
    old.propose([1; 16]);
    assert_eq!(old.verdict(Some(&header)), Verdict::Proceed);
    let (_, taken) = Protocol::open(Some(&header), grant(2), [], 4).unwrap();
    assert_eq!(old.verdict(Some(&taken)), Verdict::Fenced(Fenced { epoch: 1 }));
}

#[test]
fn an_entry_of_another_batch_is_never_taken_for_ours() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let (mut protocol, _) = Protocol::open(None, grant, [], 4).unwrap();
    let ours = protocol.propose([1; 16]);
    assert_eq!(protocol.verdict(Some(&ours.header)), Verdict::AlreadyCommitted);
    let theirs = Header {
        last_batch_id: Bytes::copy_from_slice(&[2; 16]),
        ..ours.header
    };
    assert_eq!(protocol.verdict(Some(&theirs)), Verdict::Fenced(Fenced { epoch: 1 }));
}

#[test]
fn the_same_owner_token_under_another_epoch_is_fenced() {
    let owner = [1; 16];
    let (old, header) = Protocol::open(None, Grant { epoch: 1, owner }, [], 4).unwrap();
    let (_, taken) = Protocol::open(Some(&header), Grant { epoch: 2, owner }, [], 4).unwrap();
    assert_eq!(old.verdict(Some(&taken)), Verdict::Fenced(Fenced { epoch: 2 }));
}

#[test]
fn a_lower_epoch_cannot_open() {
    let (_, header) = Protocol::open(
        None,
        Grant {
            epoch: 5,
            owner: [1; 16],
        },
        [],
        4,
    )
    .unwrap();
    let refused = Protocol::open(
        Some(&header),
        Grant {
            epoch: 4,
            owner: [2; 16],
        },
        [],
        4,
    );
    assert_eq!(refused.err(), Some(Fenced { epoch: 5 }));
}

#[test]
fn the_high_watermark_waits_for_every_in_sync_replica() {
    let (mut protocol, _) = Protocol::open(
        None,
        Grant {
            epoch: 1,
            owner: [1; 16],
        },
        [1, 2],
        4,
    )
    .unwrap();
    protocol.propose([1; 16]);
    assert_eq!(protocol.committed(), None);
    assert_eq!(protocol.replicated(1, 1), None);
    assert_eq!(protocol.replicated(2, 1), Some(1));
    assert_eq!(protocol.replicated(2, 1), None);
}
