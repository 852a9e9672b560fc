use antiphon_kv::{CommitFault, Faults, KvError};
use antiphon_slot::{Hooks, SlotError, SlotOptions, SlotTxn, Slots, protocol::InSync};
use antiphon_types::{Slot, kind};
use foundationdb_tuple::pack;

use crate::{cluster, contract::open, fdb::Programs};

/// Adds one to a counter and returns it.
async fn count(slots: &Slots, slot: Slot) -> u64 {
    let counted = slots.write(slot, move |txn: SlotTxn| async move {
        let key = pack(&(slot.number(), kind::TAIL, "counter"));
        let before = txn.get(&key).await?;
        let number = before.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap())) + 1;
        txn.set(key, number.to_be_bytes().to_vec());
        Ok::<_, SlotError>(number)
    });
    counted.await.unwrap().value
}

/// The attempt that finds the entry in the log must not answer with what its commands would do now.
pub(crate) async fn a_commit_of_unknown_result_is_answered_with_what_it_has_stored(programs: Programs) {
    let cluster = cluster(programs, 1, "single memory").await;
    let faults = Faults::default();
    let kv = open(&cluster, "unknown").await.with_faults(faults.clone());
    let slots = Slots::start(kv.clone(), SlotOptions::default(), [1; 16], Hooks::default());
    let slot = Slot::new(7).unwrap();
    slots.grant(slot, 1, InSync::alone());
    assert_eq!(count(&slots, slot).await, 1);
    for fault in [
        CommitFault::After(KvError::CommitUnknown),
        CommitFault::Before(KvError::CommitUnknown),
    ] {
        faults.add(fault.clone());
        let number = count(&slots, slot).await;
        let expected = match fault {
            CommitFault::After(_) => 2,
            CommitFault::Before(_) => 3,
        };
        assert_eq!(number, expected, "{fault:?}");
    }
    assert_eq!(count(&slots, slot).await, 4);
    slots.close().await;
    kv.close().await.unwrap();
}
