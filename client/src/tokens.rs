//! The pair of tokens of one log-in, renewed before they expire.

use std::time::{Duration, Instant};

use crate::{Account, AccountError, Tokens};

/// The tokens of one log-in.
#[derive(Debug)]
pub(crate) struct Keeper {
    account: Account,
    tokens: Tokens,
    renew_at: Instant,
}

/// How a renewal went.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// There are new tokens.
    Renewed(Tokens),
    /// The log-in is over.
    LoggedOut(String),
    /// The server could not be asked.
    Failed(String),
}

impl Keeper {
    pub(crate) fn new(account: Account, tokens: Tokens) -> Self {
        let renew_at = renew_at(&tokens);
        Self {
            account,
            tokens,
            renew_at,
        }
    }

    pub(crate) fn access_token(&self) -> &str {
        &self.tokens.access_token
    }

    pub(crate) fn is_renewal_due(&self) -> bool {
        Instant::now() >= self.renew_at
    }

    /// The access token was refused: it is of no use, whatever the clock says.
    pub(crate) fn expire(&mut self) {
        self.renew_at = Instant::now();
    }

    /// Asks an edge for the next pair, without holding the keeper.
    pub(crate) fn renewal(&self, edge: &str) -> impl Future<Output = Renewal> + Send + use<> {
        let (account, refresh_token) = (self.account.at(edge), self.tokens.refresh_token.clone());
        async move {
            match account.refresh(&refresh_token).await {
                Ok(tokens) => Renewal::Renewed(tokens),
                Err(AccountError::Refused { code, detail, .. }) if code == "UNAUTHENTICATED" => {
                    Renewal::LoggedOut(detail)
                }
                Err(error) => Renewal::Failed(error.to_string()),
            }
        }
    }

    pub(crate) fn renewed(&mut self, tokens: Tokens) {
        self.renew_at = renew_at(&tokens);
        self.tokens = tokens;
    }

    /// Renewal failed for want of a server: not before this is it tried again.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.renew_at = Instant::now() + by;
    }
}

/// At four fifths of the token's life.
fn renew_at(tokens: &Tokens) -> Instant {
    Instant::now() + Duration::from_secs(tokens.expires_in_s).mul_f64(0.8)
}
