#!/usr/bin/env bash
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=drill.bash
. "$(dirname "${BASH_SOURCE[0]}")/drill.bash"

drill=rolling-restart
about="Restarts one region after the other, each as soon as all is well after the one before."
promises="  nothing is lost, duplicated or reordered"

fault() {
    local name starts
    for name in "${regions[@]}"; do
        starts=$(seen_of "$name" starts)
        say "restarting $name"
        ctl process "$name" restart
        wait_until_back "$name" "$starts"
        wait_until_well
    done
}

restore() {
    even_out
}

run_drill "$@"
