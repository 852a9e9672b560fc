use std::sync::Arc;

use antiphon_kv::Kv;

use crate::{Carrier, CommitObserver, Lease, Shipping, SlotOptions};

/// Who else has to do with the slots of a node.
pub struct Hooks {
    /// Follow what is committed.
    pub observers: Vec<Arc<dyn CommitObserver>>,
    /// Carry events to other slots.
    pub carriers: Vec<Arc<dyn Carrier>>,
    /// Ships logs to other regions.
    pub shipping: Option<Arc<dyn Shipping>>,
    /// The right of this region to be home of anything.
    pub lease: Lease,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            observers: Vec::new(),
            carriers: Vec::new(),
            shipping: None,
            lease: Lease::endless(),
        }
    }
}

/// What all slots of a node share.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) kv: Kv,
    pub(crate) options: SlotOptions,
    pub(crate) observers: Arc<[Arc<dyn CommitObserver>]>,
    pub(crate) carriers: Arc<[Arc<dyn Carrier>]>,
    pub(crate) shipping: Option<Arc<dyn Shipping>>,
    pub(crate) lease: Lease,
}

impl Node {
    pub(crate) fn new(kv: Kv, options: SlotOptions, hooks: Hooks) -> Self {
        Self {
            kv,
            options,
            observers: hooks.observers.into(),
            carriers: hooks.carriers.into(),
            shipping: hooks.shipping,
            lease: hooks.lease,
        }
    }
}
