//! antiphon-delivery
