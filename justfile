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

# Strike worlds of regions with faults: `just chaos --rounds 5`, `just chaos --rounds 1 --only kill-home,drain-home`.
[positional-arguments]
chaos *args:
    #!/usr/bin/env bash
    set -euo pipefail
    while [ $# -gt 0 ]; do
        case "$1" in
            --rounds) export ANTIPHON_CHAOS_ROUNDS="$2" ;;
            --only) export ANTIPHON_CHAOS_FAULTS="$2" ;;
            *) echo "just chaos [--rounds NUMBER] [--only FAULT,FAULT]" >&2; exit 2 ;;
        esac
        shift 2
    done
    cargo test -p antiphon --test chaos -- --ignored --nocapture

# Simulate whole regions; `just sim --seeds 1000` tries more worlds, `just sim --seed 17 --trace` shows one.
sim *args:
    cargo test --quiet -p antiphon-replication --test sim -- {{ args }}

# Measure everything that BENCHMARKS.md says, and write it anew.
benchmarks *sections:
    cargo build --release -p antiphon
    region/scripts/benchmarks.sh {{ sections }}

# Run a node; arguments go to `antiphon up`.
up *args:
    cargo run --release -- up {{ args }}

# Write docs/CONFIG.md anew.
reference:
    cargo run --quiet -- config --reference > docs/CONFIG.md

# All of what the build server runs.
ci:
    .ci/run
