use antiphon_slot::SlotError;
use bytes::Bytes;
use prost::Message;

/// Reads a stored value; `what` names it where it cannot be read.
pub(crate) fn decoded<M: Message + Default>(what: &str, stored: Option<Bytes>) -> Result<Option<M>, SlotError> {
    let decode = |value| {
        M::decode(value).map_err(|error| SlotError::Corrupt {
            what: what.to_owned(),
            reason: error.to_string(),
        })
    };
    stored.map(decode).transpose()
}
