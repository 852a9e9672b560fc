#!/usr/bin/env bash
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=drill.bash
. "$(dirname "${BASH_SOURCE[0]}")/drill.bash"

drill=failover
about="Kills a region and keeps it away for --fault-seconds: its homes fail over to regions that hold all that it acknowledged."
promises="  nothing is lost, duplicated or reordered
  every conversation is acknowledged again within --writable-ms-max"
writable_ms_max=10000

fault() {
    local starts
    starts=$(seen_of "$region" starts)
    say "killing $region for $fault_seconds s"
    ctl process "$region" kill --down-ms "$((fault_seconds * 1000))"
    wait_until_back "$region" "$starts"
    wait_until_well
}

restore() {
    even_out
}

run_drill "$@"
