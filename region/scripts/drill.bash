# What the drills share: options, the load, the verdict. Sourced, not run.
#
# A drill sets `drill`, `about` and `promises` (and may set the defaults below), defines `fault` and `restore`, and calls
# `run_drill "$@"`. Nothing but the verdict goes to standard output.
# shellcheck shell=bash

base_port=7400
binary=
region=
load_seconds=10
fault_seconds=15
rate=2
well_seconds=120
writable_ms_max=
broken=0

say() {
    printf '%s %s: %s\n' "$(date +%T)" "$drill" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

usage() {
    cat <<USAGE
Usage: $(basename "$0") [OPTIONS]

$about
The world has to run already (\`antiphon up\`), and is left as it was found. Progress goes to standard error; the last
line, on standard output, is {"drill","lost","duplicated","reordered","failedSends","writableAgainMs","p99Ms"}.

Exits 1 when a promise is broken:
$promises
  every send is acknowledged in the end, and every region shows every history
  the world is well again within --well-seconds

Options:
  --base-port N          of the world [default: $base_port]
  --binary PATH          antiphon [default: the one built in this repository, or the one on the PATH]
  --region NAME          the region that suffers, where there is one [default: the first]
  --load-seconds N       of load before and after the fault [default: $load_seconds]
  --fault-seconds N      that a fault lasts, where it has to end [default: $fault_seconds]
  --rate N               messages a second of each member in each conversation [default: $rate]
  --well-seconds N       within which all is to be well again [default: $well_seconds]
  --writable-ms-max N    the longest time without an acknowledgement [default: ${writable_ms_max:-no limit}]
  --help
USAGE
}

whole_number() {
    [[ $2 =~ ^[0-9]{1,7}$ ]] || die "$1 $2: is no whole number"
}

parse_options() {
    while (($# > 0)); do
        local option=$1
        case $option in
            --help)
                usage
                exit 0
                ;;
            --base-port | --binary | --region | --load-seconds | --fault-seconds | --rate | --well-seconds | --writable-ms-max)
                (($# > 1)) || die "$option needs a value; see --help"
                ;;
            *) die "there is no option $option; see --help" ;;
        esac
        local value=$2
        shift 2
        case $option in
            --binary) binary=$value ;;
            --region) region=$value ;;
            --rate) rate=$value ;;
            --base-port) whole_number "$option" "$value" && base_port=$value ;;
            --load-seconds) whole_number "$option" "$value" && load_seconds=$value ;;
            --fault-seconds) whole_number "$option" "$value" && fault_seconds=$value ;;
            --well-seconds) whole_number "$option" "$value" && well_seconds=$value ;;
            --writable-ms-max) whole_number "$option" "$value" && writable_ms_max=$value ;;
        esac
    done
}

find_binary() {
    local built
    built=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release/antiphon
    if [[ -z $binary && -x $built ]]; then
        binary=$built
    fi
    binary=${binary:-antiphon}
    command -v "$binary" >/dev/null || die "there is no $binary; build it with cargo build --release, or name it with --binary"
}

# What the world says of each region, one a line.
regions_seen() {
    "$binary" ctl --world "http://127.0.0.1:$((base_port + 99))" process --json | sed 's/},{/}\n{/g'
}

# Of one region: a member of its line.
seen_of() {
    regions_seen | grep -F "\"name\":\"$1\"" | sed -n "s/.*\"$2\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

# The names of all regions, into `regions`; their edges as flags of the probe, into `edges`; the region that suffers.
find_regions() {
    local seen name port
    seen=$(regions_seen) || die "no world answers at port $base_port; start one with: antiphon up --base-port $base_port"
    regions=()
    edges=()
    while read -r name port; do
        regions+=("$name")
        edges+=(--edge "http://127.0.0.1:$port")
    done < <(sed -n 's/.*"name":"\([^"]*\)".*"httpPort":\([0-9]*\).*/\1 \2/p' <<<"$seen")
    ((${#regions[@]} >= 3)) || die "a drill needs three regions at least; this world has ${#regions[@]}"
    region=${region:-${regions[0]}}
    local at
    witness_port=
    for at in "${!regions[@]}"; do
        if [[ ${regions[at]} != "$region" && -z $witness_port ]]; then
            witness_port=$((${edges[2 * at + 1]##*:} + 1))
        fi
    done
    [[ " ${regions[*]} " == *" $region "* ]] || die "there is no region $region; there are ${regions[*]}"
}

# The operator's commands, by a region that does not suffer. What they print is progress.
ctl() {
    "$binary" ctl --admin "http://127.0.0.1:$witness_port" --world "http://127.0.0.1:$((base_port + 99))" --yes "$@" >&2
}

# Tries again: while the directory has no leader it refuses, which is no reason to give up.
ctl_surely() {
    local deadline=$((SECONDS + well_seconds))
    until ctl "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 1
    done
}

# Brings homes back to where they are preferred.
even_out() {
    ctl_surely rebalance --seconds "$well_seconds"
}

# The directory says nothing of processes: one that is not home of anything may be gone for all it knows.
wait_until_well() {
    local deadline=$((SECONDS + well_seconds)) name
    ctl wait --seconds "$well_seconds" || die "the world is not well again"
    for name in "${regions[@]}"; do
        until [[ $(seen_of "$name" state) == ready ]]; do
            ((SECONDS < deadline)) || die "$name is not ready within $well_seconds s"
            sleep 0.5
        done
    done
}

# Waits until a region's process was started more than so many times and is ready.
wait_until_back() {
    local name=$1 starts=$2 deadline=$((SECONDS + well_seconds))
    until [[ $(seen_of "$name" state) == ready && $(seen_of "$name" starts) -gt $starts ]]; do
        ((SECONDS < deadline)) || die "$name is not back within $well_seconds s"
        sleep 0.5
    done
}

start_load() {
    "$binary" probe "${edges[@]}" --rate "$rate" --json >"$scratch/report" 2>"$scratch/probe" &
    probe=$!
    until grep -q 'are sending' "$scratch/probe"; do
        kill -0 "$probe" 2>/dev/null || die "the load cannot begin: $(cat "$scratch/probe")"
        sleep 0.1
    done
    say "$(cat "$scratch/probe")"
}

stop_load() {
    local ended=0
    kill -TERM "$probe"
    wait "$probe" || ended=$?
    probe=
    [[ -s $scratch/report ]] || die "the load came to nothing: $(cat "$scratch/probe")"
    if ((ended != 0)); then
        say "broken promise: $(tail -n 1 "$scratch/probe")"
        broken=1
    fi
}

# A number of the report.
reported() {
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$scratch/report"
}

must_be_at_most() {
    local name=$1 limit=$2 value
    value=$(reported "$name")
    [[ -n $value ]] || die "the report has no $name"
    if ((value > limit)); then
        say "broken promise: $name is $value, and not at most $limit"
        broken=1
    fi
}

judge() {
    say "$(cat "$scratch/report")"
    must_be_at_most lost 0
    must_be_at_most duplicated 0
    must_be_at_most reordered 0
    if [[ ${failed_sends_max:-} ]]; then
        must_be_at_most failedSends "$failed_sends_max"
    fi
    if [[ $writable_ms_max ]]; then
        must_be_at_most writableAgainMs "$writable_ms_max"
    fi
    printf '{"drill":"%s","lost":%s,"duplicated":%s,"reordered":%s,"failedSends":%s,"writableAgainMs":%s,"p99Ms":%s}\n' \
        "$drill" "$(reported lost)" "$(reported duplicated)" "$(reported reordered)" "$(reported failedSends)" \
        "$(reported writableAgainMs)" "$(reported p99Ms)"
    # A load that got nothing through has shown nothing.
    (($(reported acknowledged) > 0)) || die "nothing was acknowledged"
    ((broken == 0)) || exit 1
}

leave() {
    local ended=$?
    trap - EXIT
    if [[ $probe ]]; then
        kill -KILL "$probe" 2>/dev/null || true
    fi
    if [[ $is_faulty ]]; then
        restore || say "the world could not be left as it was found"
    fi
    rm -rf "$scratch"
    exit "$ended"
}

run_drill() {
    parse_options "$@"
    find_binary
    find_regions
    probe=
    is_faulty=
    scratch=$(mktemp -d)
    trap leave EXIT
    # Without these a signal would end the shell and not run what cleans up.
    trap 'exit 130' INT
    trap 'exit 143' TERM
    wait_until_well
    start_load
    sleep "$load_seconds"
    is_faulty=yes
    fault
    restore || die "the world could not be left as it was found"
    wait_until_well
    is_faulty=
    sleep "$load_seconds"
    stop_load
    judge
}
