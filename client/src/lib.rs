//! antiphon-client
