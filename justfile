# What one does daily. `just` alone lists them.

_default:
    @just --list

# Compile everything, run nothing.
check:
    cargo check --workspace --all-targets

# Format, lint, document, deny.
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace
    cargo deny check bans licenses sources

# Run every test.
test:
    cargo test

# Simulate whole regions; `just sim --seeds 1000` tries more worlds, `just sim --seed 17 --trace` shows one.
sim *args:
    cargo test --quiet -p antiphon-replication --test sim -- {{ args }}

# Run a node; arguments go to `antiphon up`.
up *args:
    cargo run --release -- up {{ args }}

# Write docs/CONFIG.md anew.
reference:
    cargo run --quiet -- config --reference > docs/CONFIG.md

# All of what the build server runs.
ci:
    .ci/run
