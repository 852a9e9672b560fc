//! A session on its connection, whatever the transport is.

mod catch_up;
mod hello;
mod requests;
mod resume;
mod run;
mod sends;

pub(crate) use run::run;
