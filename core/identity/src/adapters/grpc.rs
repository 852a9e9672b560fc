use antiphon_proto::rpc::{
    CreateAccountRequest, CreateAccountResponse, GetAccountRequest, GetAccountResponse, JwksRequest, JwksResponse,
    LogInRequest, LogOutRequest, LogOutResponse, RefreshRequest, RegisterRequest, RegisterResponse, ResolveRequest,
    ResolveResponse, RotateKeysRequest, RotateKeysResponse, SigningKeysRequest, SigningKeysResponse, Tokens,
    identity_server,
};
use antiphon_types::{DeviceId, UserId, Username};
use tonic::{Request, Response, Status, async_trait};

use crate::{Identity, IdentityError, app, app::tokens::Issued};

#[async_trait]
impl identity_server::Identity for Identity {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest {
            username,
            password,
            home_region,
        } = request.into_inner();
        let registered = app::register::register(self.inner(), &username, password, &home_region);
        let user_id = registered.await.map_err(|error| error.to_status())?;
        Ok(Response::new(RegisterResponse {
            user_id: user_id.to_bytes(),
        }))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let username = read(Username::parse(&request.get_ref().username))?;
        let user_id = app::resolve::resolve(self.inner(), username)
            .await
            .map_err(|error| error.to_status())?;
        Ok(Response::new(ResolveResponse {
            user_id: user_id.to_bytes(),
        }))
    }

    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let claim = read(
            request
                .into_inner()
                .claim
                .ok_or(IdentityError::Missing { field: "claim" }),
        )?;
        app::create_account::create_account(self.inner(), claim)
            .await
            .map_err(|error| error.to_status())?;
        Ok(Response::new(CreateAccountResponse {}))
    }

    async fn log_in(&self, request: Request<LogInRequest>) -> Result<Response<Tokens>, Status> {
        let LogInRequest {
            user_id,
            password,
            device_id,
            is_claimed,
        } = request.into_inner();
        let user_id = read(UserId::from_bytes(&user_id))?;
        let device_id = read(DeviceId::parse(&device_id))?;
        tokens(app::log_in::log_in(self.inner(), (user_id, is_claimed), password, device_id).await)
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<Tokens>, Status> {
        tokens(app::refresh::refresh(self.inner(), &request.get_ref().refresh_token).await)
    }

    async fn log_out(&self, request: Request<LogOutRequest>) -> Result<Response<LogOutResponse>, Status> {
        let logged_out = app::log_out::log_out(self.inner(), &request.get_ref().refresh_token);
        logged_out.await.map_err(|error| error.to_status())?;
        Ok(Response::new(LogOutResponse {}))
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<GetAccountResponse>, Status> {
        let user_id = read(UserId::from_bytes(&request.get_ref().user_id))?;
        let account = app::get_account::get_account(self.inner(), user_id)
            .await
            .map_err(|error| error.to_status())?;
        Ok(Response::new(GetAccountResponse {
            user_id: user_id.to_bytes(),
            username: account.username,
            created_at_ms: account.created_at_ms,
        }))
    }

    async fn jwks(&self, _: Request<JwksRequest>) -> Result<Response<JwksResponse>, Status> {
        let jwks_json = app::jwks::jwks(self.inner()).await.map_err(|error| error.to_status())?;
        Ok(Response::new(JwksResponse { jwks_json }))
    }

    async fn signing_keys(&self, _: Request<SigningKeysRequest>) -> Result<Response<SigningKeysResponse>, Status> {
        let keys = app::signing_keys::signing_keys(self.inner()).await;
        Ok(Response::new(keys.map_err(|error| error.to_status())?))
    }

    async fn rotate_keys(&self, _: Request<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        let kid = app::rotate_keys::rotate_keys(self.inner())
            .await
            .map_err(|error| error.to_status())?;
        Ok(Response::new(RotateKeysResponse { kid }))
    }
}

fn tokens(issued: Result<Issued, IdentityError>) -> Result<Response<Tokens>, Status> {
    let issued = issued.map_err(|error| error.to_status())?;
    Ok(Response::new(Tokens {
        access_token: issued.access_token,
        refresh_token: issued.refresh_token,
        expires_in_s: issued.expires_in_s,
        user_id: issued.user_id.to_bytes(),
    }))
}

fn read<T, E: Into<IdentityError>>(field: Result<T, E>) -> Result<T, Status> {
    field.map_err(|error| error.into().to_status())
}
