//! The directory's rules from outside: one deployment, commands, and what must hold after each.

mod commands;
mod invariants;
mod lease;
mod min_in_sync;
mod planner;
mod properties;
mod size;
mod world;
