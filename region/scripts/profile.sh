#!/usr/bin/env bash
# Where the server's processor time goes under a load of `antiphon bench`: shares of perf's samples, which add up to all of it.
#   region/scripts/profile.sh SCENARIO [ARGUMENT...]
# Wants perf (linux-perf) and a build with line tables, as of `cargo build --release`. A server of one region; the load is to last 30 s.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

antiphon=${ANTIPHON:-target/release/antiphon}
# Until users are registered and messages flow, and how long is looked at.
until_s=${PROFILE_UNTIL_S:-12}
for_s=${PROFILE_FOR_S:-15}
folder=$(mktemp -d)
# The server first: without its load it would stay.
trap 'pkill -P "$load" 2>/dev/null || true; kill "$load" 2>/dev/null || true; rm -rf "$folder"' EXIT

"$antiphon" bench "$@" >"$folder/figures" 2>"$folder/said" &
load=$!
sleep "$until_s"
server=$(pgrep --oldest -P "$load") || { tail -n 3 "$folder/said" >&2; exit 1; }
# The stack is copied and unwound afterwards: frame pointers are not kept.
perf record --quiet --call-graph dwarf,24576 --freq 150 --pid "$server" --output "$folder/samples" sleep "$for_s"
wait "$load" || { tail -n 3 "$folder/said" >&2; exit 1; }
perf script --input "$folder/samples" --no-inline --fields comm,ip,sym >"$folder/stacks" 2>/dev/null

# The kernel's by system call, the rest by the innermost function that belongs to a part.
awk '
function part_of_kernel(at) {
    for (at = 1; at <= depth; at++) {
        if (stack[at] ~ /fdatasync/) return "kernel: fdatasync"
        if (stack[at] ~ /sys_send/) return "kernel: sending"
        if (stack[at] ~ /sys_recv/) return "kernel: receiving"
        if (stack[at] ~ /sys_futex|epoll|eventfd|sys_write/) return "kernel: waiting and waking"
        if (stack[at] ~ /page_fault/) return "kernel: page faults"
    }
    return "kernel: other"
}
function part(at, name) {
    for (at = 1; at <= depth; at++) {
        name = stack[at]
        if (name ~ /entry_SYSCALL|asm_exc|asm_common|asm_sysvec/) return part_of_kernel()
        if (name ~ /^_?mi_/) return "allocator"
        if (name ~ /lsm_tree|fjall|crossbeam_skiplist/) return "store: memtable and journal"
        if (name ~ /antiphon_kv/) return "store: transactions"
        if (name ~ /tracing|sharded_slab|metrics/) return "traces and metrics"
        if (name ~ /prost|antiphon_proto/) return "protobuf"
        if (name ~ /quinn|rustls|ring_core/) return "QUIC and TLS"
        if (name ~ /tungstenite|axum::extract::ws/) return "WebSocket"
        if (name ~ /tonic|tower|http_body|hyper|axum|antiphon_directory/) return "calls within the node (tonic)"
        if (name ~ /antiphon_slot/) return "slots"
        if (name ~ /antiphon_/) return "services and edge"
        if (name ~ /tokio|futures/) return "tokio"
    }
    return "other"
}
/^$/ { if (depth) { count[part()]++; total++ } depth = 0; next }
/^[^ \t]/ { next }
{ sub(/^[ \t]*[0-9a-f]+ /, ""); stack[++depth] = $0 }
END { for (name in count) printf "%5.1f %%  %s\n", 100 * count[name] / total, name }
' "$folder/stacks" | sort --reverse --numeric-sort
