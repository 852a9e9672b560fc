#!/usr/bin/env bash
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=drill.bash
. "$(dirname "${BASH_SOURCE[0]}")/drill.bash"

drill=drain
about="Moves every home out of a region, slot by slot, and back again."
promises="  nothing is lost, duplicated or reordered
  no send fails"
failed_sends_max=0

fault() {
    say "draining $region"
    ctl_surely drain "$region" --seconds "$well_seconds" || die "$region is not home of nothing within $well_seconds s"
}

restore() {
    ctl_surely undrain "$region" && even_out
}

run_drill "$@"
