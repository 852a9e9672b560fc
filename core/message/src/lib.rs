//! antiphon-message
