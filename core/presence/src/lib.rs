//! antiphon-presence
