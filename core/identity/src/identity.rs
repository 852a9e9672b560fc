use std::{fmt, sync::Arc};

use antiphon_directory::Route;
use antiphon_proto::rpc::identity_server::IdentityServer;
use antiphon_slot::Slots;
use antiphon_types::Clock;

use crate::{
    IdentityError, IdentityOptions, OptionsError,
    adapters::{hashing::Hashing, key_ring::KeyRing, key_store::KeyStore, log_in_attempts::LogInAttempts},
};

/// The identity service of a node. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) slots: Slots,
    pub(crate) route: Route,
    pub(crate) clock: Clock,
    pub(crate) options: IdentityOptions,
    pub(crate) hashing: Hashing,
    pub(crate) log_in_attempts: LogInAttempts,
    pub(crate) key_ring: KeyRing,
    pub(crate) key_store: KeyStore,
}

impl Identity {
    /// The service over the slots of this node.
    ///
    /// # Errors
    /// [`OptionsError`] when the settings do not go together.
    pub fn new(slots: Slots, route: Route, clock: Clock, options: IdentityOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let inner = Inner {
            hashing: Hashing::new(&options.password_hashing)?,
            log_in_attempts: LogInAttempts::new(&options),
            key_ring: KeyRing::new(route.clone(), clock.clone(), options.key_refresh),
            key_store: KeyStore::new(slots.clone(), options.key_policy()),
            slots,
            route,
            clock,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The gRPC service.
    #[must_use]
    pub fn into_server(self) -> IdentityServer<Self> {
        IdentityServer::new(self)
    }

    /// Has the first signing key made, and the next one when the newest is old enough. Log-ins and edges that fetch the keys do so
    /// too; called now and then by any node, it rotates on a quiet deployment as well.
    ///
    /// # Errors
    /// [`IdentityError`] when the keys cannot be reached; the next call tries again.
    pub async fn rotate_keys_if_due(&self) -> Result<(), IdentityError> {
        self.inner.key_ring.look_after().await
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
