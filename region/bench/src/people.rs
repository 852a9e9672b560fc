//! Accounts of the devices.

use antiphon_client::{Account, AccountError, Tokens};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Passwords are hashed to be slow: more at once only wait for each other.
const AT_ONCE: usize = 8;
const PASSWORD: &str = "correct horse battery";
/// The device that everybody logs in with.
pub(crate) const DEVICE: &str = "bench";

/// Registers this many users and logs each in.
pub(crate) async fn register(url: &str, count: usize) -> Result<Vec<Tokens>> {
    let run: u32 = rand::random();
    let account = Account::new(url);
    let registering = stream::iter(0..count).map(|at| {
        let account = &account;
        async move {
            let name = format!("bench-{run:08x}-{at}");
            account.register(&name, PASSWORD).await?;
            account.log_in(&name, PASSWORD, DEVICE).await
        }
    });
    let registered: Result<_, AccountError> = registering.buffered(AT_ONCE).try_collect().await;
    registered.context("users cannot be registered")
}
