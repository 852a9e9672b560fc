use std::sync::Arc;

use antiphon_directory::{Route, SlotRoute, Table, TableWatch};
use antiphon_identity::{
    Identity, IdentityOptions, PasswordHashing, TokenVerifier, carrier, refresh_token_user, username_slot,
};
use antiphon_kv::{EmbeddedOptions, Kv};
use antiphon_proto::{
    log::{FamilyRevoked, event},
    refusal,
    rpc::{
        GetAccountRequest, JwksRequest, LogInRequest, LogOutRequest, RefreshRequest, RegisterRequest, ResolveRequest,
        RotateKeysRequest, Tokens, identity_client::IdentityClient,
    },
};
use antiphon_slot::{CommitObserver, CommittedEntry, Hooks, SlotError, SlotOptions, Slots, protocol::InSync};
use antiphon_types::{Clock, Slot, UserId, Username, kind};
use foundationdb_tuple::pack;
use parking_lot::Mutex;
use tempfile::TempDir;
use tonic::{Status, service::Routes};

pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A node of one region over an embedded store, with a clock that a test moves.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    pub(crate) slots: Slots,
    route: Route,
    revoked: Arc<Revoked>,
    kv: Kv,
    folder: TempDir,
}

#[derive(Default)]
struct Revoked(Mutex<Vec<FamilyRevoked>>);

impl CommitObserver for Revoked {
    fn committed(&self, entry: &CommittedEntry) {
        self.0
            .lock()
            .extend(entry.events.iter().filter_map(|event| match &event.body {
                Some(event::Body::FamilyRevoked(revoked)) => Some(revoked.clone()),
                _ => None,
            }));
    }
}

/// A refusal's code, message and pause.
pub(crate) type Refused = (String, String, Option<u64>);

pub(crate) fn options() -> IdentityOptions {
    IdentityOptions {
        password_hashing: PasswordHashing {
            memory_kib: 64,
            iterations: 1,
            ..PasswordHashing::default()
        },
        ..IdentityOptions::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: IdentityOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = EmbeddedOptions {
            path: folder.path().to_owned(),
            ..EmbeddedOptions::default()
        };
        let kv = Kv::open_embedded(embedded).await.unwrap();
        Self::start(kv, folder, Clock::manual(START_MS), options, [1; 16])
    }

    /// The same store under the next process of the node, which remembers nothing.
    pub(crate) async fn restarted(self) -> Self {
        self.slots.close().await;
        Self::start(self.kv, self.folder, self.clock, options(), [2; 16])
    }

    fn start(kv: Kv, folder: TempDir, clock: Clock, options: IdentityOptions, owner: [u8; 16]) -> Self {
        let route = Route::new("here", TableWatch::new(Table::single("here")));
        let revoked = Arc::new(Revoked::default());
        let slots = Slots::start(
            kv.clone(),
            SlotOptions::default(),
            owner,
            Hooks {
                observers: vec![revoked.clone()],
                carriers: vec![carrier(route.clone())],
                ..Hooks::default()
            },
        );
        Slot::all().for_each(|slot| slots.grant(slot, 1, InSync::alone()));
        let identity = Identity::new(slots.clone(), route.clone(), clock.clone(), options).unwrap();
        route.serve(Routes::new(identity.clone().into_server()));
        Self {
            clock,
            identity,
            slots,
            route,
            revoked,
            kv,
            folder,
        }
    }

    pub(crate) fn client(&self, slot: Slot) -> IdentityClient<SlotRoute> {
        IdentityClient::new(self.route.to(slot))
    }

    pub(crate) async fn register_in(
        &self,
        username: &str,
        password: &str,
        home_region: &str,
    ) -> Result<UserId, Refused> {
        let slot = Username::parse(username).map_or(Slot::DEPLOYMENT, |username| username_slot(&username));
        let request = RegisterRequest {
            username: username.to_owned(),
            password: password.to_owned(),
            home_region: home_region.to_owned(),
        };
        let registered = self
            .client(slot)
            .register(request)
            .await
            .map_err(|status| refused(&status))?;
        Ok(UserId::from_bytes(&registered.into_inner().user_id).unwrap())
    }

    pub(crate) async fn register(&self, username: &str, password: &str) -> Result<UserId, Refused> {
        self.register_in(username, password, "").await
    }

    pub(crate) async fn resolve(&self, username: &str) -> Result<UserId, Refused> {
        let slot = username_slot(&Username::parse(username).unwrap());
        let request = ResolveRequest {
            username: username.to_owned(),
        };
        let resolved = self
            .client(slot)
            .resolve(request)
            .await
            .map_err(|status| refused(&status))?;
        Ok(UserId::from_bytes(&resolved.into_inner().user_id).unwrap())
    }

    pub(crate) async fn username_of(&self, user_id: UserId) -> Result<String, Refused> {
        let request = GetAccountRequest {
            user_id: user_id.to_bytes(),
        };
        let account = self
            .client(user_id.slot())
            .get_account(request)
            .await
            .map_err(|status| refused(&status))?;
        Ok(account.into_inner().username)
    }

    pub(crate) async fn log_in_with(
        &self,
        user_id: UserId,
        password: &str,
        device_id: &str,
    ) -> Result<Tokens, Refused> {
        self.log_in_as(user_id, false, password, device_id).await
    }

    pub(crate) async fn log_in_as(
        &self,
        user_id: UserId,
        is_claimed: bool,
        password: &str,
        device_id: &str,
    ) -> Result<Tokens, Refused> {
        let request = LogInRequest {
            user_id: user_id.to_bytes(),
            password: password.to_owned(),
            device_id: device_id.to_owned(),
            is_claimed,
        };
        let tokens = self
            .client(user_id.slot())
            .log_in(request)
            .await
            .map_err(|status| refused(&status))?;
        Ok(tokens.into_inner())
    }

    pub(crate) async fn log_in(&self, user_id: UserId, device_id: &str) -> Tokens {
        self.log_in_with(user_id, PASSWORD, device_id).await.unwrap()
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Refused> {
        let slot = refresh_token_user(refresh_token).map_or(Slot::DEPLOYMENT, |user_id| user_id.slot());
        let request = RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        Ok(self
            .client(slot)
            .refresh(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner())
    }

    pub(crate) async fn log_out(&self, refresh_token: &str) -> Result<(), Refused> {
        let slot = refresh_token_user(refresh_token).map_or(Slot::DEPLOYMENT, |user_id| user_id.slot());
        let request = LogOutRequest {
            refresh_token: refresh_token.to_owned(),
        };
        self.client(slot)
            .log_out(request)
            .await
            .map(drop)
            .map_err(|status| refused(&status))
    }

    pub(crate) async fn jwks(&self) -> String {
        let answer = self.client(Slot::DEPLOYMENT).jwks(JwksRequest {}).await.unwrap();
        answer.into_inner().jwks_json
    }

    pub(crate) async fn rotate_keys(&self) -> String {
        let answer = self
            .client(Slot::DEPLOYMENT)
            .rotate_keys(RotateKeysRequest {})
            .await
            .unwrap();
        answer.into_inner().kid
    }

    pub(crate) async fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new("antiphon", &self.jwks().await).unwrap()
    }

    /// The families of a user that ended so far: device and reason.
    pub(crate) async fn revoked(&self, user_id: UserId) -> Vec<(String, String)> {
        let revoked = self.revoked_families(user_id).await;
        revoked
            .into_iter()
            .map(|revoked| (revoked.device_id, revoked.reason))
            .collect()
    }

    pub(crate) async fn revoked_families(&self, user_id: UserId) -> Vec<FamilyRevoked> {
        // Observers hear of an entry after its answer, and before the next commit of the slot.
        let barrier = self.slots.write(user_id.slot(), move |txn| async move {
            txn.set(pack(&(txn.slot().number(), kind::TAIL, "barrier")), vec![]);
            Ok::<_, SlotError>(())
        });
        barrier.await.unwrap();
        self.revoked.0.lock().clone()
    }
}

fn refused(status: &Status) -> Refused {
    let refusal = refusal::of(status);
    (refusal.code, status.message().to_owned(), refusal.retry_after_ms)
}

pub(crate) fn code<T>(result: Result<T, Refused>) -> String {
    result.map(|_| "OK".to_owned()).unwrap_or_else(|(code, _, _)| code)
}
