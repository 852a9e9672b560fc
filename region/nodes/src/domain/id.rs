use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Names a node within its region: 1 to 32 lower-case letters, digits and hyphens. A process that is started again in another's place
/// takes its id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

const LEN_MAX: usize = 32;

/// Text that names no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node id {0:?} is not 1 to {LEN_MAX} lower-case letters, digits and hyphens")]
pub struct NodeIdError(String);

impl NodeId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`NodeIdError`].
    pub fn parse(text: &str) -> Result<Self, NodeIdError> {
        let of_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > LEN_MAX || !text.bytes().all(of_id) {
            return Err(NodeIdError(text.chars().take(2 * LEN_MAX).collect()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        Self::parse(&text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["1", "2", "node-7", "a".repeat(32).as_str()] {
            assert_eq!(NodeId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a.b", "a b", "ä", "a".repeat(33).as_str()] {
            assert!(NodeId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_stored_of_an_id_is_its_text_and_is_checked() {
        let id = NodeId::parse("2").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"2\"");
        assert_eq!(serde_json::from_str::<NodeId>("\"2\"").unwrap(), id);
        assert!(serde_json::from_str::<NodeId>("\"\"").is_err());
    }
}
