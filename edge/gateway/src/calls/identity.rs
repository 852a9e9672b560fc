use antiphon_directory::SlotRoute;
use antiphon_identity::{refresh_token_user, username_slot};
use antiphon_proto::rpc::{
    GetAccountRequest, JwksRequest, LogInRequest, LogOutRequest, RefreshRequest, RegisterRequest, ResolveRequest,
    Tokens, identity_client::IdentityClient,
};
use antiphon_session::Refusal;
use antiphon_types::{DeviceId, ErrorCode, Slot, UserId, Username};

use super::{Calls, user};

impl Calls {
    pub(crate) async fn register(&self, username: &Username, password: String) -> Result<UserId, Refusal> {
        let request = RegisterRequest {
            username: username.to_string(),
            password,
            home_region: self.route.region().to_owned(),
        };
        let mut client = self.identity(username_slot(username));
        user(&self.answer(client.register(request)).await?.user_id)
    }

    pub(crate) async fn resolve(&self, username: &Username) -> Result<UserId, Refusal> {
        let request = ResolveRequest {
            username: username.to_string(),
        };
        let mut client = self.identity(username_slot(username));
        user(&self.answer(client.resolve(request)).await?.user_id)
    }

    /// `is_claimed` says that a username is known to be this user's.
    pub(crate) async fn log_in(
        &self,
        (who, is_claimed): (UserId, bool),
        password: String,
        device: &DeviceId,
    ) -> Result<Tokens, Refusal> {
        let request = LogInRequest {
            user_id: who.to_bytes(),
            password,
            device_id: device.to_string(),
            is_claimed,
        };
        let mut client = self.identity(who.slot());
        self.answer(client.log_in(request)).await
    }

    pub(crate) async fn refresh(&self, refresh_token: String) -> Result<Tokens, Refusal> {
        let who = owner_of(&refresh_token)?;
        let mut client = self.identity(who.slot());
        self.answer(client.refresh(RefreshRequest { refresh_token })).await
    }

    pub(crate) async fn log_out(&self, refresh_token: String) -> Result<(), Refusal> {
        let who = owner_of(&refresh_token)?;
        let mut client = self.identity(who.slot());
        self.answer(client.log_out(LogOutRequest { refresh_token })).await?;
        Ok(())
    }

    /// The username of a user.
    pub(crate) async fn username(&self, who: UserId) -> Result<String, Refusal> {
        let mut client = self.identity(who.slot());
        Ok(self
            .answer(client.get_account(GetAccountRequest {
                user_id: who.to_bytes(),
            }))
            .await?
            .username)
    }

    pub(crate) async fn jwks(&self) -> Result<String, Refusal> {
        let mut client = self.identity(Slot::DEPLOYMENT);
        Ok(self.answer(client.jwks(JwksRequest {})).await?.jwks_json)
    }

    fn identity(&self, slot: Slot) -> IdentityClient<SlotRoute> {
        IdentityClient::new(self.route.to(slot))
    }
}

/// A refresh token says whose it is, so that it can be routed; whether it is genuine the user's slot knows.
fn owner_of(refresh_token: &str) -> Result<UserId, Refusal> {
    refresh_token_user(refresh_token).ok_or_else(|| {
        Refusal::new(
            ErrorCode::Unauthenticated,
            "the refresh token is not of the form of one",
        )
    })
}
