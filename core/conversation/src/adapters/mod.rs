pub(crate) mod keys;
pub(crate) mod store;
