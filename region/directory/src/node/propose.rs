use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    DirectoryNode, Shared,
    ask::{Attempt, Reach},
};
use crate::{
    DirectoryError,
    domain::{Applied, Command, Rejection},
    raft::{
        Proposal,
        codec::{CodecError, encode},
        network::MESSAGE_BYTES_MAX,
    },
};

/// Bytes of a command.
const COMMAND_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// A command that was carried out, and the index of its entry.
pub(crate) type Done = Result<(Applied, u64), Rejection>;

impl DirectoryNode {
    /// Has the directory carry out a command, whichever node leads, and returns what it changed once this node has applied it too.
    ///
    /// It may be tried more than once, and so may its caller try: a command names the epoch and version that it was decided on, and
    /// is stale the second time. Who sees [`Rejection::Stale`] after a failure looks into the state.
    ///
    /// # Errors
    /// [`DirectoryError`], within `request_timeout_ms`.
    pub async fn propose(&self, command: Command) -> Result<Applied, DirectoryError> {
        let (applied, index) = self.shared.propose(Reach::Anywhere, command).await??;
        // What was decided is known; a node that is slow to apply it holds nobody up.
        let applying = self.shared.applied_at_least(index);
        let _ = tokio::time::timeout(self.shared.request_timeout(), applying).await;
        Ok(applied)
    }
}

impl Shared {
    pub(super) async fn propose(&self, reach: Reach, command: Command) -> Result<Done, DirectoryError> {
        let encoded = encode_command(&command)?;
        self.at_leader(
            reach,
            self.request_timeout(),
            || self.propose_here(command.clone()).boxed(),
            |client| self.caller().propose(client, encoded.clone()).boxed(),
        )
        .await
    }

    /// Only if this node leads: what is decided by the leader's clock must not be carried out by another one.
    pub(super) async fn propose_here(&self, command: Command) -> Result<Done, Attempt> {
        let written = self.raft.client_write(Proposal(command)).await?;
        let index = written.log_id.index();
        // An entry that carries a command is answered with what the command did.
        let answer = written.data.0.ok_or(Attempt::Unknown)?;
        Ok(answer.map(|applied| (applied, index)))
    }
}

/// A command as it is sent.
pub(crate) fn encode_command(command: &Command) -> Result<Bytes, DirectoryError> {
    let encoded = encode("a command", command).map_err(|error| DirectoryError::NotAccepted(error.to_string()))?;
    if encoded.len() > COMMAND_BYTES_MAX {
        return Err(DirectoryError::TooLarge {
            size: encoded.len(),
            limit: COMMAND_BYTES_MAX,
        });
    }
    Ok(encoded)
}

impl From<CodecError> for Attempt {
    fn from(error: CodecError) -> Self {
        Self::Final(DirectoryError::NotAccepted(error.to_string()))
    }
}
