//! antiphon-conversation
