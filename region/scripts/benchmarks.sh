#!/usr/bin/env bash
# Measures what BENCHMARKS.md says, and writes it anew: all of it, or the sections that are named. Wants the machine to itself.
#   region/scripts/benchmarks.sh [SECTION...]
# All but `million`, `herd` and `hour` take an hour; `profile` wants perf.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

antiphon=${ANTIPHON:-target/release/antiphon}
folder=docs/benchmarks
sections=(highest spread profile growth million herd connections absence promises overload hour)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
mkdir -p "$folder"

say() { printf '%s\n' "$@" >>"$out"; }

# What was run, and what it has printed; or why it failed.
bench() {
    echo "antiphon bench $*" >&2
    say '```' "antiphon bench $*"
    "$antiphon" bench "$@" 2>"$said" >>"$out" || tail -n 1 "$said" >>"$out"
    say '```' ''
}

# As `bench`, but where the time goes.
shares() {
    say '```' "region/scripts/profile.sh $*"
    ANTIPHON=$antiphon region/scripts/profile.sh "$@" 2>"$said" >>"$out" || tail -n 1 "$said" >>"$out"
    say '```' ''
}

# As `bench`, with a picture of that name.
draw() {
    local picture=$folder/$1.svg
    bench "${@:2}" --plot "$picture"
    say "![$1]($picture)" ''
}

highest() {
    say '## The highest rate' '' \
        'With 99 of 100 messages at their receiver within 100 ms, none refused and none lost: the last line of which all that holds.' ''
    for transport in ws wt quic; do
        bench pairs --pairs 200 --transport "$transport" --find-max --p99-ms 100 --rate 2000 --warm-up 2 --seconds 5 --yardstick
    done
    say 'And within two seconds:' ''
    draw highest pairs --pairs 200 --transport ws --find-max --p99-ms 2000 --rate 8000 --warm-up 2 --seconds 5 --yardstick
    # For `overload`.
    sed -n 's|^the highest rate with .*: \([0-9]*\) messages/s$|\1|p' "$said" >"$folder/highest.rate"
    [ -s "$folder/highest.rate" ] || { echo 'no rate was kept within two seconds: see highest.md' >&2; exit 1; }
}

spread() {
    say '## Spread' '' 'The same load five times.' ''
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --runs 5
}

profile() {
    say '## Where the time goes' '' \
        'Shares of the processor time of the server, where batches are small, where they are large, and where one message goes to ten thousand.' ''
    shares pairs --pairs 200 --rate 2000 --warm-up 2 --seconds 30 --transport ws
    shares pairs --pairs 200 --rate 16000 --warm-up 2 --seconds 30 --transport ws
    PROFILE_UNTIL_S=45 shares broadcast --members 10000 --rate 1 --warm-up 2 --seconds 60 --transport ws
}

growth() {
    say '## How cost grows' '' \
        'More conversations and connections at the same rate; over QUIC, where one server may have more of them than it may open files on this' \
        'machine. Whoever seldom talks says each half of a heartbeat that it is there, and `server µs` has that in it. With the heartbeat of 30 s' \
        'these two cores, load and all, are at their end with 100,000 connections (ARCHITECTURE.md), so it is four times as long.' ''
    draw connections pairs --pairs 500,5000,15000,50000 --transport quic --rate 1000 --warm-up 15 --seconds 20 --set edge.heartbeat_ms=120000
    say 'Over WebSocket:' ''
    bench pairs --pairs 50,500,5000,9000 --transport ws --rate 1000 --warm-up 5 --seconds 10
    say 'More conversations of the same connections:' ''
    draw conversations pairs --users 1000 --pairs 1000,10000,100000 --transport ws --rate 1000 --warm-up 5 --seconds 10
    say 'More members at the same rate of deliveries: the more there are, the fewer are the messages, and an acknowledgement (each device sends' \
        'one after at most 200 ms) covers fewer of them.' ''
    draw members broadcast --members 2,10,100,1000,10000 --transport ws --deliveries 5000 --warm-up 4 --seconds 10
    say 'Groups of several sizes in which everybody talks:' ''
    bench groups --transport ws --rate 500 --warm-up 2 --seconds 5
}

million() {
    say '## A store that is not empty' ''
    draw stored pairs --pairs 200 --stored 0,100000,1000000,10000000 --transport ws --rate 1000 --warm-up 5 --seconds 10
}

herd() {
    say '## 100,000 connections' '' \
        'Over WebSocket to six regions and from six processes of the load, as one may open 20,000 files on this machine: all are cut off, miss three' \
        'messages and return at the same moment. `MiB before`: with all connected, before they are cut off.' ''
    bench reconnect-storm --connections 100000 --missed 3 --transport ws --regions 6
}

connections() {
    say '## Connections' ''
    bench idle --connections 10000 --transport ws
    bench idle --connections 2000
    bench connect
}

absence() {
    say '## After an absence' ''
    bench reconnect-storm --connections 10000 --missed 10 --transport ws
    bench sync --transport ws
    bench history --transport ws --rate 500
}

promises() {
    say '## What a promise costs' '' \
        'WebSocket over TLS; JSON in place of the binary protocol; three regions, where a message is acknowledged when two of them have it (one' \
        'region: when it alone has).' ''
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --yardstick
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --tls
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --codec json
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --regions 3
}

overload() {
    local highest
    highest=$(cat "$folder/highest.rate")
    say '## Overload' '' \
        'Five minutes at twice the highest rate that is kept within two seconds, between calm ones that are long enough for the store to write' \
        'its buffers to the disk. `at most`: the most memory of the server. A second is slow whose 99 of 100 took more than twice as long as in' \
        'any second of the calm before. `normal after ms`: from the end of the overload until ten seconds begin of which none is slow. `slow' \
        'seconds`: in all of the calm after it. `for good`: of what was refused, what was not told when to try again.' ''
    draw overload overload --transport ws --rate $((2 * highest)) --calm-rate 1000 --calm 90 --seconds 300
}

hour() {
    say '## A day in an hour' '' \
        'Pairs and groups that talk, read, look back, lose their connections and return. Latencies are from when a message was due, also for' \
        'a device that was away then.' ''
    draw hour mixed --transport ws --rate 200 --seconds 3600
}

named=("$@")
for section in "${named[@]:-${sections[@]}}"; do
    out=$folder/$section.md
    : >"$out"
    "$section"
    say "Release build of $(git rev-parse --short HEAD), $(date -u +%F)." ''
done

{
    printf '%s\n' '# Benchmarks' '' \
        'Written by `just benchmarks`; every table has the command above it that has printed it.' '' \
        '- Each run has a server of its own, on the same machine as the load, with an empty store on the embedded engine.' \
        '- Arrival times are fixed beforehand: a server that stalls is charged with all that would have come meanwhile.' \
        '- `offered/s` and `messages/s`: what was to be sent, and what was acknowledged, which is durable. `p50 ms` to `p99.9 ms`: from when a' \
        '  message was due until its receiver has it. `server µs` and `fsyncs`: processor time of the server for each message, and how often it has' \
        '  waited for the disk, all regions together. `of echo`: the share of what a bare WebSocket server of the same frames sends back on this' \
        '  machine. `lost`: has a seq and is missing at a receiver.' '' \
        "Machine: $(nproc) cores ($(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)), $(awk '/MemTotal/ { printf "%d GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r | cut -d- -f1)." ''
    for section in "${sections[@]}"; do
        [ ! -f "$folder/$section.md" ] || cat "$folder/$section.md"
    done
} >BENCHMARKS.md
