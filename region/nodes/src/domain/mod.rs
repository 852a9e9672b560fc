//! Pure rules: whose a slot is, and who is alive.

mod id;
mod liveness;
mod owner;

pub use id::{NodeId, NodeIdError};
pub use liveness::{Liveness, Sign};
pub use owner::owner;
