//! Speaks to the admin port of a running world.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;

use super::{
    api::{Down, WorldView},
    link::{LinkChange, LinkView},
    region::Action,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running world on this machine.
pub(crate) struct Control {
    base: String,
    client: Client,
}

impl Control {
    /// The world whose admin port is at `url`, as in `http://127.0.0.1:7499`.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub(crate) fn at(url: &str) -> Result<Self> {
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            client: antiphon_client::http_client(None),
        })
    }

    /// Its regions.
    ///
    /// # Errors
    /// When nothing answers; so for the others.
    pub(crate) async fn world(&self) -> Result<WorldView> {
        self.ask(self.client.get(self.url("world"))).await
    }

    /// All links.
    pub(crate) async fn links(&self) -> Result<Vec<LinkView>> {
        self.ask(self.client.get(self.url("links"))).await
    }

    /// Changes what bytes from one region to another meet.
    pub(crate) async fn change_link(&self, from: &str, to: &str, change: &LinkChange) -> Result<LinkView> {
        let url = self.url(&format!("links/{from}/{to}"));
        self.ask(self.client.put(url).json(change)).await
    }

    /// Does something to a region's process; `down_ms` is how long it stays away after a kill or a restart.
    pub(crate) async fn act(&self, region: &str, action: Action, down_ms: Option<u64>) -> Result<()> {
        let action = serde_json::to_value(action)?;
        let url = self.url(&format!("regions/{region}/{}", action.as_str().unwrap_or_default()));
        let request = self.client.post(url).json(&Down { down_ms });
        self.ask::<serde_json::Value>(request).await.map(drop)
    }

    /// Takes a region into the directory and starts it.
    pub(crate) async fn add_region(&self, name: &str) -> Result<()> {
        let request = self.client.post(self.url(&format!("regions/{name}")));
        self.ask::<serde_json::Value>(request).await.map(drop)
    }

    /// Ends a region that is in the directory no more.
    pub(crate) async fn remove_region(&self, name: &str) -> Result<()> {
        let request = self.client.delete(self.url(&format!("regions/{name}")));
        self.ask::<serde_json::Value>(request).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let answer = request.timeout(PATIENCE).send().await;
        let answer = answer.with_context(|| format!("no world answers at {} (--world)", self.base))?;
        let is_success = answer.status().is_success();
        let body = answer.text().await.context("the world's answer broke off")?;
        if !is_success {
            bail!("{}", body.trim());
        }
        serde_json::from_str(&body).with_context(|| format!("the world answers {body:?}"))
    }
}
