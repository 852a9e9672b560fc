//! Two owners, one store, any interleaving of commits that succeed, fail, or leave their result unknown.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEPT: Kept = Kept {
    entries: 4,
    behind_max: 20,
};

fn with(others: &[Replica]) -> InSync {
    InSync {
        others: others.iter().copied().collect(),
        confirmed: others.len() + 1,
        min_in_sync: 1,
        durability: Durability::Global,
        opening: u64::MAX,
    }
}

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
        let in_sync = if self.with_replica { with(&[1]) } else { InSync::alone() };
        let Ok((protocol, header)) = Protocol::open(self.store.header.as_ref(), grant, in_sync, KEPT) else {
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
    let (mut old, header) = Protocol::open(None, grant(1), InSync::alone(), KEPT).unwrap();
    old.propose([1; 16]);
    assert_eq!(old.verdict(Some(&header)), Verdict::Proceed);
    let (_, taken) = Protocol::open(Some(&header), grant(2), InSync::alone(), KEPT).unwrap();
    assert_eq!(old.verdict(Some(&taken)), Verdict::Fenced(Fenced { epoch: 1 }));
}

#[test]
fn an_entry_of_another_batch_is_never_taken_for_ours() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let (mut protocol, _) = Protocol::open(None, grant, InSync::alone(), KEPT).unwrap();
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
    let (old, header) = Protocol::open(None, Grant { epoch: 1, owner }, InSync::alone(), KEPT).unwrap();
    let (_, taken) = Protocol::open(Some(&header), Grant { epoch: 2, owner }, InSync::alone(), KEPT).unwrap();
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
        InSync::alone(),
        KEPT,
    )
    .unwrap();
    let refused = Protocol::open(
        Some(&header),
        Grant {
            epoch: 4,
            owner: [2; 16],
        },
        InSync::alone(),
        KEPT,
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
        with(&[1, 2]),
        KEPT,
    )
    .unwrap();
    protocol.propose([1; 16]);
    assert_eq!(protocol.committed(), None);
    assert_eq!(protocol.replicated(1, 1), None);
    assert_eq!(protocol.replicated(2, 1), Some(1));
    assert_eq!(protocol.replicated(2, 1), None);
}

#[test]
fn below_the_fewest_copies_nothing_is_committed() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let few = InSync {
        min_in_sync: 2,
        ..InSync::alone()
    };
    let (mut protocol, _) = Protocol::open(None, grant, few, KEPT).unwrap();
    assert!(!protocol.accepts_writes());
    protocol.propose([1; 16]);
    assert_eq!(protocol.committed(), None);
    let enough = InSync {
        min_in_sync: 2,
        ..with(&[1])
    };
    assert_eq!(protocol.set_in_sync(enough), None);
    assert!(protocol.accepts_writes());
    assert_eq!(protocol.replicated(1, 1), Some(1));
}

#[test]
fn a_region_that_is_being_added_counts_before_it_is_confirmed() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let adding = InSync {
        confirmed: 1,
        ..with(&[1])
    };
    let (mut protocol, _) = Protocol::open(None, grant, adding, KEPT).unwrap();
    protocol.propose([1; 16]);
    assert_eq!(protocol.committed(), None);
    assert_eq!(protocol.replicated(1, 1), Some(1));
}

#[test]
fn a_new_home_shows_nothing_before_what_it_found_is_committed_again() {
    let found = Header {
        epoch: 3,
        last_index: 7,
        first_index: 1,
        applied_index: 4,
        high_watermark: 5,
        epochs: vec![EpochStart {
            epoch: 3,
            first_index: 1,
        }],
        ..Header::default()
    };
    let grant = Grant {
        epoch: 4,
        owner: [1; 16],
    };
    let (mut protocol, header) = Protocol::open(Some(&found), grant, with(&[9]), KEPT).unwrap();
    assert_eq!((header.applied_index, header.high_watermark), (4, 5));
    assert_eq!(protocol.unapplied(), Some(5..=7));
    protocol.applied(7);
    assert!(!protocol.is_open());
    assert_eq!(protocol.replicated(9, 6), Some(6));
    assert!(!protocol.is_open());
    // What a replica says that it holds beyond the log is not the log's.
    assert_eq!(protocol.replicated(9, 99), Some(7));
    assert!(protocol.is_open());
    let proposal = protocol.propose([1; 16]);
    assert_eq!(
        proposal.header.epochs.last(),
        Some(&EpochStart {
            epoch: 4,
            first_index: 8
        })
    );
}

#[test]
fn a_replica_holds_up_trimming_only_so_far() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let (mut protocol, _) = Protocol::open(None, grant, InSync::alone(), KEPT).unwrap();
    let mut first_index = 1;
    protocol.follows(5, 1);
    for index in 1..=60 {
        if let Some(range) = protocol.propose([1; 16]).trim {
            first_index = range.end;
        }
        protocol.committed();
        protocol.carried(index);
        if index == 20 {
            assert_eq!(first_index, 1, "entries that the replica lacks were trimmed");
        }
    }
    assert!((30..=41).contains(&first_index), "{first_index}");
}

#[test]
fn regional_durability_waits_for_nobody() {
    let grant = Grant {
        epoch: 1,
        owner: [1; 16],
    };
    let regional = InSync {
        durability: Durability::Regional,
        ..with(&[1])
    };
    let (mut protocol, _) = Protocol::open(None, grant, regional, KEPT).unwrap();
    protocol.propose([1; 16]);
    assert_eq!(protocol.committed(), Some(1));
}

#[test]
fn a_slot_that_is_opened_again_in_its_epoch_commits_nothing_before_the_directory_has_heard_of_it() {
    let grant = |owner| Grant {
        epoch: 3,
        owner: [owner; 16],
    };
    let heard = |opening| InSync { opening, ..with(&[9]) };
    let (mut first, stored) = Protocol::open(None, grant(1), heard(0), KEPT).unwrap();
    assert!(first.is_settled(), "nobody had it before in this epoch");
    first.propose([1; 16]);
    first.committed();

    // The process dies, with a question open that it has asked.
    let (mut second, header) = Protocol::open(Some(&stored), grant(2), heard(1), KEPT).unwrap();
    assert_eq!((stored.opening, header.opening), (1, 2));
    second.propose([2; 16]);
    second.committed();
    assert_eq!(second.replicated(9, 1), None, "who else has to hold it is not known");
    assert_eq!((second.log_state().opening, second.log_state().is_settled), (2, false));
    assert_eq!(second.set_in_sync(heard(2)), Some(1));

    let (third, _) = Protocol::open(Some(&header), Grant { epoch: 4, ..grant(3) }, heard(0), KEPT).unwrap();
    assert!(
        third.is_settled(),
        "another epoch: what was asked in the one before is refused"
    );
}
