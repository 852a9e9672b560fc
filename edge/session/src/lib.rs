//! antiphon-session
