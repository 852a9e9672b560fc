//! antiphon-identity
