#!/usr/bin/env bash
# Measures everything that BENCHMARKS.md says, and writes it anew. Takes a quarter of an hour, with the machine to itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

antiphon=${ANTIPHON:-target/release/antiphon}
out=BENCHMARKS.md
: >"$out"
said=$(mktemp)
trap 'rm -f "$said"' EXIT

say() { printf '%s\n' "$@" >>"$out"; }

# What was run, and what it has printed; or why it failed.
bench() {
    echo "antiphon bench $*" >&2
    say '```' "antiphon bench $*"
    "$antiphon" bench "$@" 2>"$said" >>"$out" || tail -n 1 "$said" >>"$out"
    say '```' ''
}

say '# Benchmarks' '' \
    'Written by `just benchmarks`; every table has the command above it that has printed it.' '' \
    '- Each run has a server of its own, on the same machine as the load, with an empty store on the embedded engine.' \
    '- Arrival times are fixed beforehand: a server that stalls is charged with all that would have come meanwhile.' \
    '- `offered/s` and `messages/s`: what was to be sent, and what was acknowledged, which is durable. `p50 ms` to `p99.9 ms`: from when a' \
    '  message was due until its receiver has it. `server µs`: processor time of the server for each message. `of echo`: the share of what' \
    '  a bare WebSocket server of the same frames sends back on this machine. `lost`: has a seq and is missing at a receiver.' '' \
    '| | |' '|---|---|' \
    "| machine | $(nproc) cores ($(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)), $(awk '/MemTotal/ { printf "%d GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r | cut -d- -f1) |" \
    "| program | $("$antiphon" --version), release build of $(git rev-parse --short HEAD) |" \
    "| date | $(date -u +%F) |" ''

say '## The highest rate' '' 'With 99 of 100 messages at their receiver within 100 ms, none refused and none lost: the last line of which all that holds.' ''
for transport in ws wt quic; do
    bench pairs --pairs 200 --transport "$transport" --find-max --p99-ms 100 --rate 2000 --warm-up 2 --seconds 5 --yardstick
done
say 'And within two seconds:' ''
bench pairs --pairs 200 --transport ws --find-max --p99-ms 2000 --rate 8000 --warm-up 2 --seconds 5 --yardstick

say '## Spread' '' 'The same load five times.' ''
bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --runs 5

say '## How cost grows' '' 'More conversations at the same rate:' ''
for pairs in 50 500 5000; do
    bench pairs --pairs "$pairs" --transport ws --rate 2000 --warm-up 5 --seconds 5
done
say 'More members at the same rate of deliveries:' ''
bench broadcast --members 10 --transport ws --rate 1000 --warm-up 2 --seconds 5
bench broadcast --members 100 --transport ws --rate 100 --warm-up 2 --seconds 5
bench broadcast --members 1000 --transport ws --rate 10 --warm-up 2 --seconds 5
bench broadcast --members 10000 --transport ws --rate 1 --warm-up 2 --seconds 10
say 'Groups of several sizes in which everybody talks:' ''
bench groups --transport ws --rate 500 --warm-up 2 --seconds 5

say '## Connections' ''
bench idle --connections 10000 --transport ws
bench idle --connections 2000
bench connect

say '## After an absence' ''
bench reconnect-storm --connections 10000 --missed 10 --transport ws
bench sync --transport ws
bench history --transport ws --rate 500

say '## What a promise costs' '' 'WebSocket over TLS; three regions, where a message is acknowledged when two of them have it.' ''
bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5
bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --tls
bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --regions 3
