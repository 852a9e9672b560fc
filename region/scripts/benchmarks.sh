#!/usr/bin/env bash
# Measures what BENCHMARKS.md says, and writes it anew: all of it, or the sections that are named. Wants the machine to itself.
#   region/scripts/benchmarks.sh [SECTION...]
# All of it takes about five hours; `profile` wants perf. Ends with 1 when a run in it has failed: its section says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

antiphon=${ANTIPHON:-target/release/antiphon}
folder=docs/benchmarks
sections=(highest memory spread profile growth members million herd connections absence promises across overload diskless hour)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
mkdir -p "$folder"

# Of what is measured, as it is before anything is written here.
build="Release build of $(git rev-parse --short HEAD)"
git diff --quiet HEAD -- '*.rs' '*.toml' '*.proto' Cargo.lock || build+=' and changes'
[ "$antiphon" = target/release/antiphon ] || build+=", or what \$ANTIPHON was built of"

say() { printf '%s\n' "$@" >>"$out"; }

failed=0

# Why the last command failed, after what it has printed.
why() {
    failed=1
    tail -n 1 "$said" | tee -a "$out" >&2
}

# What was run, and what it has printed; or why it failed.
bench() {
    echo "antiphon bench $*" >&2
    say '```' "${TMPDIR:+TMPDIR=$TMPDIR }antiphon bench $*"
    "$antiphon" bench "$@" 2>"$said" >>"$out" || why
    say '```' ''
}

# As `bench`, but where the time goes.
shares() {
    say '```' "${PROFILE_UNTIL_S:+PROFILE_UNTIL_S=$PROFILE_UNTIL_S }region/scripts/profile.sh $*"
    ANTIPHON=$antiphon region/scripts/profile.sh "$@" 2>"$said" >>"$out" || why
    say '```' ''
}

# As `bench`, with a picture of that name.
draw() {
    local picture=$folder/$1.svg
    bench "${@:2}" --plot "$picture"
    say "![$1]($picture)" ''
}

# The highest rate over a transport that keeps that many milliseconds, from the first rate on; what prints and draws it is the last.
search() {
    "${@:4}" pairs --pairs 200 --transport "$1" --find-max --p99-ms "$2" --rate "$3" --warm-up 2 --seconds 10 --runs 3 --yardstick
}

highest() {
    say '## The highest rate' '' \
        'The highest rate offered of which 95 of 100 messages are acknowledged in time and 99 of 100 of these at their receiver within 100 ms, none' \
        'refused and none lost. Each search tries several; the line below the table has what they have found.' ''
    for transport in ws wt quic; do
        search "$transport" 100 4000 bench
    done
    say 'Within ten milliseconds, and within two seconds:' ''
    search ws 10 2000 bench
    search ws 2000 16000 draw highest
    # For `overload`.
    sed -n 's|^websocket, the highest rate with p99 <= 2000 ms, median of [^:]*: \([0-9]*\) .*|\1|p' "$out" >"$folder/highest.rate"
    [ -s "$folder/highest.rate" ] || { echo 'no rate was kept within two seconds: see highest.md' >&2; exit 1; }
}

memory() {
    say '## The highest rate without a disk' '' \
        'Within ten milliseconds with the store in memory, where no write waits for a disk that stands still:' ''
    TMPDIR=/dev/shm search ws 10 2000 bench
}

spread() {
    say '## Spread' '' 'The same load five times.' ''
    bench pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 5 --runs 5 --yardstick
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
    draw connections pairs --pairs 500,5000,15000,50000 --transport quic --rate 1000 --warm-up 15 --seconds 20 --runs 3 --yardstick \
        --set edge.heartbeat_ms=120000
    say 'Over WebSocket:' ''
    bench pairs --pairs 50,500,5000,9000 --transport ws --rate 1000 --warm-up 5 --seconds 10 --runs 3 --yardstick
    say 'More conversations of the same connections:' ''
    draw conversations pairs --users 1000 --pairs 1000,10000,100000 --transport ws --rate 1000 --warm-up 5 --seconds 10 --runs 3 --yardstick
}

members() {
    say '## How cost grows with members' '' \
        'One message a second to more and more members; each device acknowledges each message. `server µs` is then all that the server does in' \
        'a second: what it does when nobody talks, and the heartbeats of all devices, too.' ''
    draw members broadcast --members 2,10,100,1000,10000 --transport ws --rate 1 --warm-up 4 --seconds 20 --runs 3 --yardstick
    say 'The same rate of deliveries: the more members there are, the fewer are the messages, and an acknowledgement (each device sends one after' \
        'at most 200 ms) covers fewer of them.' ''
    draw deliveries broadcast --members 2,10,100,1000,10000 --transport ws --deliveries 5000 --warm-up 4 --seconds 10 --runs 3 --yardstick
    say 'As many deliveries as can be:' ''
    bench broadcast --members 1000 --rate 16 --find-max --p99-ms 1000 --transport ws --warm-up 4 --seconds 10 --runs 3 --yardstick
    say 'Groups of several sizes in which everybody talks:' ''
    bench groups --transport ws --rate 500 --warm-up 2 --seconds 10 --runs 3 --yardstick
}

million() {
    say '## A store that is not empty' ''
    draw stored pairs --pairs 200 --stored 0,100000,1000000,10000000 --transport ws --rate 1000 --warm-up 5 --seconds 10 --runs 3 --yardstick
}

herd() {
    say '## 100,000 connections' '' \
        'Over WebSocket to six regions and from six processes of the load, as one may open 20,000 files on this machine: all are cut off, miss three' \
        'messages and return at the same moment. `MiB empty`: before the first of them connects; `MiB before`: with all connected, before they' \
        'are cut off; `server MiB`: with all back; `MiB after`: a minute after all have left for good.' ''
    bench reconnect-storm --connections 100000 --missed 3 --settle 60 --transport ws --regions 6 --yardstick
}

connections() {
    say '## Connections' ''
    bench idle --connections 10000 --transport ws --runs 3
    bench idle --connections 2000 --runs 3
    bench connect --runs 3
}

absence() {
    say '## After an absence' '' \
        '`MiB empty`: before the first device connects; `MiB before`: with all connected, before they go away; `server MiB`: with all back;' \
        '`MiB after`: twenty seconds after all have left for good.' ''
    bench reconnect-storm --connections 10000 --missed 10 --settle 20 --transport ws --runs 3 --yardstick
    bench sync --settle 20 --transport ws --runs 3 --yardstick
    bench history --transport ws --rate 500 --runs 3 --yardstick
}

promises() {
    say '## What a promise costs' '' \
        'WebSocket over TLS; JSON in place of the binary protocol; three regions, with no delay between them, where a message is acknowledged when' \
        'two of them have it (`global`) or when its home alone has (`regional`). What is dearer by less than runs of one load differ is not told' \
        'apart.' ''
    local load=(pairs --pairs 200 --transport ws --rate 2000 --warm-up 2 --seconds 10 --runs 5 --yardstick)
    bench "${load[@]}"
    bench "${load[@]}" --tls
    bench "${load[@]}" --codec json
    # Three regions on this machine do less.
    load=(pairs --pairs 200 --transport ws --rate 1000 --warm-up 2 --seconds 10 --runs 3 --yardstick)
    bench "${load[@]}"
    bench "${load[@]}" --regions 3
    bench "${load[@]}" --regions 3 --set placement.durability=regional
}

across() {
    say '## Between regions' '' \
        'Three regions as far from each other as the places that they are named after, and groups with a member in each: how long messages take on' \
        'each way. `links p50 ms` and `links p99 ms`: what the links alone take, to the home, to the copy that answers first and back, and to the' \
        'receiver; each delays every message by up to a twentieth more, which is drawn. `over the links ms`: by how much `p99 ms` is above' \
        '`links p99 ms`. `writable again`: the longest time in which a conversation acknowledged nothing.' ''
    far_apart
    say 'The same with the stores in memory, where no write waits for a disk:' ''
    TMPDIR=/dev/shm far_apart
}

# Three regions that a probe talks in.
far_apart() {
    # Not local: what is run at the end knows them, too.
    data=$(mktemp -d)
    mkdir "$data/store"
    echo "antiphon probe, between three regions, stores in $data" >&2
    "$antiphon" up --regions us-east,eu-central,ap-northeast --wan --base-port 7800 --data "$data/store" >"$data/said" 2>&1 &
    world=$!
    trap 'kill "$world" 2>/dev/null || true; rm -rf "$said" "$data"' EXIT
    until grep -qx ready "$data/said"; do
        kill -0 "$world" 2>/dev/null || { cat "$data/said" >&2; exit 1; }
        sleep 1
    done
    say '```' "antiphon up --regions us-east,eu-central,ap-northeast --wan --base-port 7800${TMPDIR:+ --data $TMPDIR/store}" \
        'antiphon probe --world http://127.0.0.1:7899 --warm-up 5 --seconds 125 --transport ws'
    "$antiphon" probe --world http://127.0.0.1:7899 --warm-up 5 --seconds 125 --transport ws >>"$out" 2>"$said" || why
    say '```' ''
    kill "$world"
    wait "$world" || true
    rm -rf "$data"
    trap 'rm -f "$said"' EXIT
}

overload() {
    say '## Overload' '' \
        'Five minutes at twice the highest rate that is kept within two seconds, between calm ones that are long enough for the store to write' \
        'its buffers to the disk. `offered/s` is that of the overload and `in overload/s` what was acknowledged then; `messages/s` and latencies' \
        'are of all of the run. A second is slow whose 99 of 100 took longer than `slow above ms`, which is twice as long as in any second of the' \
        'calm before in which the disk did not stand still (in any, if it did in each): a thread of the load, which appends 200 bytes, waits for' \
        'fdatasync and then 10 ms, again and again, waited longer than 10 ms in that second or the one before. `normal after ms`: from the end of' \
        'the overload until ten seconds begin of which none is slow. `slow seconds`: in all of the calm after it. `of the disk`, of these: it stood' \
        'still, for more than half as long; `but for the disk`: as `normal after ms`, without them. `for good`: of what was refused, what was not' \
        'told when to try again.' ''
    double_the_highest overload
}

diskless() {
    say '## Overload without a disk' '' \
        'The same with the store in memory, where a write waits for no disk: what is slow here is the server alone.' ''
    TMPDIR=/dev/shm double_the_highest diskless
}

# Five minutes of twice the highest rate, with a picture of this name.
double_the_highest() {
    draw "$1" overload --transport ws --rate $((2 * $(cat "$folder/highest.rate"))) --calm-rate 1000 --calm 90 --seconds 300 --runs 3 --yardstick
}

hour() {
    say '## A day in an hour' '' \
        'Pairs and groups that talk, read, look back, lose their connections and return. Latencies are from when a message was due, also for' \
        'a device that was away then. `broken rules` has in it what the checker of `antiphon probe` has found in the histories of two groups of' \
        'three that talk beside them, 1.2 messages a second.' ''
    draw hour mixed --transport ws --rate 200 --seconds 3600 --yardstick
}

named=("$@")
for section in "${named[@]:-${sections[@]}}"; do
    out=$folder/$section.md
    : >"$out"
    "$section"
    say "$build, $(date -u +%F)." ''
done

{
    printf '%s\n' '# Benchmarks' '' \
        'Written by `just benchmarks`; every table has the command above it that has printed it.' '' \
        '- Each run has a server of its own, on the same machine as the load, on the embedded engine; with an empty store but where another is named.' \
        '- Arrival times are fixed beforehand: a server that stalls is charged with all that would have come meanwhile.' \
        '- `offered/s` and `messages/s`: what was to be sent, and what was acknowledged in that time, which is durable. `p50 ms` to `p99.9 ms`: from' \
        '  when a message was due until a receiver has it; `samples`: how many of those these are of; `to all`: until the last receiver has it.' \
        '  `lost`: has a seq and is missing at a receiver, or was never answered. `duplicated`: seqs that no acknowledgement has told. `broken rules`:' \
        '  what did not come in the order of the seqs, or is not the same for its sender and all receivers.' \
        '- `server µs`, `load µs`, `written B` and `fsyncs`: processor time of the server and of the load for each message, bytes that the server has' \
        '  written to the disk, and how often it has waited for it, all regions together; for each message that a device gets where devices return or' \
        '  read. `server MiB`: at the end; `at most`: in any second, and at the end. `bytes each`: what each connection adds.' \
        '- Several runs of one load: each, and below them the median, with the least and the most. `kept`: whether a rate that a search tries is.' \
        '- `of echo`: deliveries over the frames that a bare WebSocket server sends back on this machine, each with one message and flushed by itself;' \
        '  pages have many messages, and frames that wait for one device are flushed together, so it may be more than 1. `of fdatasync`: messages' \
        '  over writes of the same bytes that each wait for the disk alone. `of codec`: deliveries over messages that one core writes and reads.' \
        '  Texts have 64 bytes.' \
        '  Memory and round trips of connections have no such yardstick; what the links between regions alone take is the one of "Between regions".' '' \
        "Machine: $(nproc) cores ($(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)), $(awk '/MemTotal/ { printf "%d GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r | cut -d- -f1), stores on $(df --output=fstype "${TMPDIR:-/tmp}" | tail -n 1); $(ulimit -n) open files a process." ''
    for section in "${sections[@]}"; do
        [ ! -f "$folder/$section.md" ] || cat "$folder/$section.md"
    done
} >BENCHMARKS.md
exit "$failed"
