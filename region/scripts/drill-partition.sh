#!/usr/bin/env bash
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=drill.bash
. "$(dirname "${BASH_SOURCE[0]}")/drill.bash"

drill=partition
about="Cuts a region off from all others for --fault-seconds, silently: nothing passes and nobody is told."
promises="  nothing is lost, duplicated or reordered"

links() {
    local other
    for other in "${regions[@]}"; do
        [[ $other == "$region" ]] || ctl link "$region" "$other" --both --state "$1" || return 1
    done
}

fault() {
    say "cutting $region off for $fault_seconds s"
    links blackhole
    sleep "$fault_seconds"
    links up
    wait_until_well
}

restore() {
    links up && even_out
}

run_drill "$@"
