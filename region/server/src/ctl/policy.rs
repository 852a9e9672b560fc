//! The rules of placement, seen and changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use antiphon_directory::domain::{Durability, Policy, State};
use anyhow::{Context as _, Result};
use clap::Args;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Ctl, api::Done};
use crate::{config::DurabilityName, deployment};

/// What stands for every region in a rule.
const EVERY: &str = "*";

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// Regions that hold a message before it is acknowledged, the home among them
    #[arg(long, value_name = "N")]
    in_sync_copies: Option<u8>,
    /// Below this many a slot refuses writes
    #[arg(long, value_name = "N")]
    min_in_sync: Option<u8>,
    /// When a message is acknowledged: when every in-sync region holds it, or when the home does
    #[arg(long)]
    durability: Option<DurabilityName>,
    /// Which regions may hold copies of the slots of one home; `HOME: *` allows all; may be repeated
    #[arg(long, value_name = "HOME: REGION REGION")]
    allow: Vec<String>,
}

/// The rules, as the admin port shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    in_sync_copies: u8,
    min_in_sync: u8,
    durability: DurabilityName,
    /// By home; one that is not here allows all.
    allowed: BTreeMap<String, BTreeSet<String>>,
}

/// What is to be other than it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PolicyChange {
    in_sync_copies: Option<u8>,
    min_in_sync: Option<u8>,
    durability: Option<DurabilityName>,
    /// Of the homes that are named alone; `*` for all regions.
    #[serde(default)]
    allowed: BTreeMap<String, BTreeSet<String>>,
}

impl Ctl {
    pub(super) async fn policy(&self, args: PolicyArgs) -> Result<()> {
        let before: PolicyView = self.get("/directory/policy").await?;
        let Some(change) = args.change()? else {
            return self.show(&before, || in_words(&before));
        };
        self.agree(
            "other rules of placement take the place of these, and copies of slots go where the rules have them",
        )?;
        let change = serde_json::to_value(&change)?;
        let _: Done = self.ask(Method::PATCH, "/directory/policy", Some(&change)).await?;
        let after: PolicyView = self.get("/directory/policy").await?;
        self.show(&json!({ "before": before, "after": after }), || in_words(&after))
    }
}

impl PolicyArgs {
    fn change(&self) -> Result<Option<PolicyChange>> {
        let rule = |text: &String| {
            deployment::allowed(text).with_context(|| format!("--allow {text:?}: is not HOME: REGION REGION"))
        };
        let is_asked = self.in_sync_copies.is_some()
            || self.min_in_sync.is_some()
            || self.durability.is_some()
            || !self.allow.is_empty();
        let change = PolicyChange {
            in_sync_copies: self.in_sync_copies,
            min_in_sync: self.min_in_sync,
            durability: self.durability,
            allowed: self.allow.iter().map(rule).collect::<Result<_>>()?,
        };
        Ok(is_asked.then_some(change))
    }
}

impl PolicyView {
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            in_sync_copies: policy.in_sync_copies,
            min_in_sync: policy.min_in_sync,
            durability: match policy.durability {
                Durability::Global => DurabilityName::Global,
                Durability::Regional => DurabilityName::Regional,
            },
            allowed: policy.allowed.clone(),
        }
    }
}

impl PolicyChange {
    /// The rules as they are to be.
    ///
    /// # Errors
    /// The name that no region has.
    pub(super) fn of(self, state: &State) -> Result<Policy, String> {
        let mut policy = state.policy.clone();
        policy.in_sync_copies = self.in_sync_copies.unwrap_or(policy.in_sync_copies);
        policy.min_in_sync = self.min_in_sync.unwrap_or(policy.min_in_sync);
        policy.durability = match self.durability {
            None => policy.durability,
            Some(DurabilityName::Global) => Durability::Global,
            Some(DurabilityName::Regional) => Durability::Regional,
        };
        let names: BTreeSet<&str> = state.regions.values().map(|region| region.name.as_str()).collect();
        for (home, mut regions) in self.allowed {
            let allows_all = regions.remove(EVERY);
            if let Some(unknown) = regions
                .iter()
                .chain([&home])
                .find(|name| !names.contains(name.as_str()))
            {
                return Err(unknown.clone());
            }
            match allows_all {
                true => policy.allowed.remove(&home),
                false => policy.allowed.insert(home, regions),
            };
        }
        Ok(policy)
    }
}

fn in_words(policy: &PolicyView) -> String {
    let durability = match policy.durability {
        DurabilityName::Global => "when every in-sync region holds it",
        DurabilityName::Regional => "when the home holds it: losing a home may lose the last moments",
    };
    let mut text = format!(
        "in-sync copies  {}\nwritten with    {} or more\nacknowledged    {durability}\n",
        policy.in_sync_copies, policy.min_in_sync
    );
    for (home, regions) in &policy.allowed {
        let regions: Vec<&str> = regions.iter().map(String::as_str).collect();
        let _ = writeln!(text, "copies of {home} are in {} alone", regions.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use antiphon_directory::domain::{Addresses, Command};

    use super::*;

    fn state() -> State {
        let names = ["us-east", "eu-central", "eu-west"];
        let mut state = State::default();
        let found = Command::Found {
            deployment: "trial".to_owned(),
            regions: names.map(|name| (name.to_owned(), Addresses::default())).to_vec(),
            policy: Policy::default(),
        };
        state.apply(&found).unwrap();
        state
    }

    fn args(allow: &[&str]) -> PolicyArgs {
        PolicyArgs {
            in_sync_copies: None,
            min_in_sync: None,
            durability: None,
            allow: allow.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        assert!(args(&[]).change().unwrap().is_none());
        let mut state = state();
        let european = args(&["eu-central: eu-west", "eu-west: eu-central"])
            .change()
            .unwrap()
            .unwrap();
        state.policy = european.of(&state).unwrap();
        assert_eq!(state.policy.allowed.len(), 2);

        let one_copy = PolicyArgs {
            min_in_sync: Some(1),
            ..args(&["eu-west: *"])
        };
        let policy = one_copy.change().unwrap().unwrap().of(&state).unwrap();
        assert_eq!((policy.min_in_sync, policy.in_sync_copies), (1, 2));
        assert_eq!(policy.allowed.keys().collect::<Vec<_>>(), ["eu-central"]);
    }

    #[test]
    fn a_rule_about_no_region_is_refused_by_name() {
        let change = args(&["eu-central: eu-wset"]).change().unwrap().unwrap();
        assert_eq!(change.of(&state()).unwrap_err(), "eu-wset");
        let error = args(&["eu-central eu-west"]).change().unwrap_err().to_string();
        assert!(error.contains("HOME: REGION REGION"), "{error}");
    }
}
