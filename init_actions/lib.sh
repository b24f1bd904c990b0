#!/usr/bin/env bash
# What the set-up of a node is on every cloud. A cloud's own file (dataproc.sh) reads this one and defines
#   object_get PATH      writes the object below staging to its standard output; `get_failed` says why it could not
#   object_put PATH      makes an object of its standard input; at most a few seconds
# before it calls what stands here. The contract, for whoever reads what comes of it:
#   /opt/mayfly/env            the job's packed interpreter, whole and of the right checksum, or not there at all
#   /opt/mayfly/ready.json     written last: this node is ready; where large temporary files go (`spill`), which port its
#                              cloud's gateway shows (`dashboard`), who says that it is taken away (`notice`)
#   runs/<cluster>/nodes/<host>.json below staging: how it went, in any case, with the last lines of this output
# Every step may be repeated. Nothing is installed from anywhere: nodes need no route to a package index.
set -Eeuo pipefail
umask 022
export LC_ALL=C.UTF-8

root=${MAYFLY_ROOT:-/opt/mayfly}
mount_seconds=${MAYFLY_MOUNT_SECONDS:-30}
log_seconds=${MAYFLY_LOG_SECONDS:-10}
began=$EPOCHREALTIME
node=${HOSTNAME%%.*}
role=unknown
evidence=""          # path below staging; empty = we do not know our store yet
mounted=()
spill=""
dashboard=0          # port of this node that the cloud's gateway shows; 0 = none
notice=""            # which cloud says beforehand that it takes this node away ("google"); empty = the node stays

# ---------------------------------------------------------------- saying things

seconds() { awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }

say() { printf 'mayfly: %6s s  %s\n' "$(seconds)" "$*"; }

fail() {  # REASON; in a file, since this may be a subshell
    because "$1"
    exit 1
}

because() { [[ -s $root/reason ]] || printf '%s\n' "${1//$'\n'/ }" >"$root/reason"; }

json_string() {  # of any text; control characters become spaces
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "$(printf '%s' "$text" | LC_ALL=C tr '\000-\037\177' ' ')"
}

json_lines() {  # a JSON list of the lines of standard input
    local line separator=""
    printf '['
    while IFS= read -r line || [[ -n $line ]]; do
        printf '%s' "$separator"
        json_string "$line"
        separator=", "
    done
    printf ']'
}

json_field() {  # FIELD: of the flat JSON object on standard input; text only
    sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p" | head -n 1
}

# ---------------------------------------------------------------- beginning and end

begin() {  # from here on all output is kept, and the end is told
    mkdir -p "$root"
    log=$root/setup.log
    : >"$log"
    rm -f "$root/reason"
    exec 3>&1 4>&2 > >(exec tee -a "$log" >&3) 2>&1
    writer=$!
    trap 'because "line $LINENO: ${BASH_COMMAND:0:120} ended with $?"' ERR
    trap 'fail "stopped by SIGTERM: its time was over"' TERM
    trap finish EXIT
}

finish() {
    local code=$? ok=false reason="" last=ready look
    trap - ERR EXIT TERM
    set +e
    if ((code == 0)); then
        ok=true
        say "$last"
    else
        rm -rf "$root/ready.json" "$root/env.new"
        because "it ended with $code"
        reason=$(<"$root/reason")
        last="FAILED on $node: $reason"
        say "$last"
    fi
    exec >&3 2>&4
    # Until the log is whole, not until nobody writes any more: something may still hold our output.
    for ((look = 0; look < 20 * log_seconds; look++)); do
        [[ $(tail -n 1 "$log") != *"$last" ]] || break
        kill -0 "$writer" 2>/dev/null || break
        sleep 0.05
    done
    if [[ -n $evidence ]]; then
        {
            printf '{"node": %s, "role": %s, "ok": %s, ' "$(json_string "$node")" "$(json_string "$role")" "$ok"
            printf '"seconds": %s, "reason": %s, "tail": ' "$(seconds)" "$(json_string "$reason")"
            tail -n 40 "$log" | json_lines
            printf '}\n'
        } >"$root/evidence.json"
        object_put "$evidence" <"$root/evidence.json" || printf 'mayfly: could not write %s\n' "$evidence" >&2
    fi
    ((code == 0)) || printf 'mayfly: FAILED on %s: %s\n' "$node" "$reason" >&2
    exit "$code"
}

ready() {
    {
        printf '{"node": %s, "role": %s, ' "$(json_string "$node")" "$(json_string "$role")"
        printf '"environment": %s, ' "$(json_string "$(cat "$root/env.sha256" 2>/dev/null || true)")"
        printf '"spill": %s, "notice": %s, ' "$(json_string "$spill")" "$(json_string "$notice")"
        printf '"dashboard": %d, "seconds": %s, "shares": ' "$dashboard" "$(seconds)"
        printf '%s\n' "${mounted[@]}" | sed '/^$/d' | json_lines
        printf '}\n'
    } >"$root/ready.json.new"
    mv "$root/ready.json.new" "$root/ready.json"
}

# ---------------------------------------------------------------- the job's environment

install_environment() {  # PATH SHA256: whole or not at all; nothing to do where it is there
    local path=$1 sha256=$2 try status
    if [[ -z $path ]]; then
        say "the job has no environment of its own: the image's Python is used"
        return
    fi
    if [[ -x $root/env/bin/python3 && $(cat "$root/env.sha256" 2>/dev/null) == "$sha256" ]]; then
        say "the environment is there"
        return
    fi
    for try in 1 2 3; do
        status=0
        unpack_once "$path" "$sha256" || status=$?
        case $status in
            0) break ;;
            1) fail "$problem" ;;
            *) say "try $try: $problem" ;;
        esac
        ((try < 3)) || fail "$problem (3 tries)"
        sleep "$try"
    done
    [[ -x $root/env.new/bin/python3 ]] || fail "the environment $path holds no bin/python3"
    "$root/env.new/bin/python3" -c 'import ssl' || fail "the environment's bin/python3 does not run on this image"
    rm -rf "$root/env.old" "$root/env.sha256"
    [[ ! -e $root/env ]] || mv "$root/env" "$root/env.old"
    mv "$root/env.new" "$root/env"
    printf '%s\n' "$sha256" >"$root/env.sha256"
    rm -rf "$root/env.old"
    say "environment of $(du -sm "$root/env" | cut -f1) MB unpacked, checksum verified"
}

unpack_once() {  # 0 = done, 1 = failed for good, 2 = try again; `problem` says what
    local path=$1 sha256=$2 adding found statuses=()
    problem="" problem_kind=1
    rm -rf "$root/env.new" "$root/sum" "$root/sum.pipe"
    mkdir "$root/env.new"
    mkfifo "$root/sum.pipe"
    sha256sum <"$root/sum.pipe" >"$root/sum" &
    adding=$!
    if object_get "$path" 2>"$root/get.log" | tee "$root/sum.pipe" |
        tar -xz --no-same-owner -C "$root/env.new" 2>"$root/tar.log"; then
        statuses=(0 0 0)
    else
        statuses=("${PIPESTATUS[@]}")
    fi
    wait "$adding"
    read -r found _ <"$root/sum"
    rm -f "$root/sum" "$root/sum.pipe"
    if ((statuses[2] == 0 && statuses[0] == 0)) && [[ $found == "$sha256" ]]; then
        return 0
    fi
    if ((statuses[0] != 0)) && get_failed "$path" "${statuses[0]}"; then
        return "$problem_kind"
    fi
    if df -P "$root" | awk 'NR == 2 { exit !($4 < 65536) }'; then
        problem="no room on $root for the environment $path"
        return 1
    fi
    problem="its SHA-256 is $found, not $sha256"
    ((statuses[2] == 0)) || problem=$(head -n 1 "$root/tar.log")
    problem="the environment $path is damaged ($problem); remove it (mayfly env rm) and clear the run to plan anew, "
    problem+="which uploads it again"
    return 1
}

# ---------------------------------------------------------------- shared directories

mount_shares() {  # a JSON list of {mount, export, server, options}
    local at from server options
    [[ -n $1 && $1 != "[]" ]] || return 0
    # Fields are separated by a character that is no white space: empty ones must not melt away.
    while IFS=$'\037' read -r at from server options; do
        mount_share "$at" "$from" "$server" "$options"
        mounted+=("$at")
    done < <(shares "$1")
    ((${#mounted[@]})) || fail "the list of shares cannot be read: $1"
}

shares() {
    local python
    for python in "$root/env/bin/python3" /usr/bin/python3 python3; do
        command -v "$python" >/dev/null || continue
        "$python" - "$1" 2>/dev/null <<'PYTHON' || true
import json, sys
for share in json.loads(sys.argv[1]):
    print("\037".join(str(share.get(key) or "") for key in ("mount", "export", "server", "options")))
PYTHON
        return
    done
    say "no python3 here that could read the list of shares"
}

mount_share() {
    local at=$1 from=$2 server=$3 given=$4 options said status=0
    case $at in
        /shared | /shared/*) ;;
        *) fail "share $at: a mount point is /shared or below it" ;;
    esac
    if mountpoint -q "$at"; then
        said=$(findmnt -n -o SOURCE --target "$at" | tail -n 1)
        if [[ -n $server && ${said%/} != "$server:${from%/}" ]]; then
            fail "share $at: something else is mounted there already: $said"
        fi
        say "share $at is mounted"
        return
    fi
    mkdir -p "$at"
    if [[ -z $server ]]; then
        [[ -d $from ]] || fail "share $at: it has no server, and there is no directory $from on this node"
        mount --bind "$from" "$at" || fail "share $at: $from cannot be bound there"
        say "share $at is $from of this node"
        look_at_share "$at"
        return
    fi
    command -v mount.nfs >/dev/null ||
        fail "share $at: this image has no mount.nfs (Debian: nfs-common, Amazon: nfs-utils); use an image that has it"
    # Hard: a server that is away for a while makes a job wait (its own limits hold), never write half a file and go on.
    # What the target gives comes last and so wins, e.g. vers=3 for the basic tiers of Filestore.
    options="hard,timeo=600,retrans=2,retry=0,nosuid,nodev,noatime"
    [[ ,$given, == *,vers=* || ,$given, == *,nfsvers=* ]] || options+=",vers=4.1"
    [[ -z $given ]] || options+=",$given"
    if [[ ,$given, != *,port=* ]]; then
        # shellcheck disable=SC2016  # expanded by the inner bash: nothing from outside becomes a command
        timeout 5 bash -c 'exec 9<>"/dev/tcp/$0/2049"' "$server" 2>/dev/null ||
            fail "share $at: $server does not answer on port 2049 within 5 s (address? firewall? same network?)"
    fi
    said=$(timeout -k 2 "$mount_seconds" mount -t nfs -o "$options" "$server:$from" "$at" 2>&1 </dev/null) || status=$?
    case $status in
        0) ;;
        124 | 137) fail "share $at: mounting $server:$from took longer than $mount_seconds s" ;;
        *) fail "share $at: $server:$from: ${said:-mount ended with $status} (options $options)" ;;
    esac
    say "share $at is $server:$from ($options)"
    look_at_share "$at"
}

look_at_share() {  # says who may write there; an answer that does not come is no failure of the node
    local mode owner group
    if read -r mode owner group < <(timeout -k 1 5 stat -c '%a %u %g' "$1" 2>/dev/null); then
        say "share $1 belongs to uid $owner, gid $group, mode $mode"
        if id yarn >/dev/null 2>&1 && ! timeout -k 1 5 runuser -u yarn -- test -w "$1" 2>/dev/null; then
            say "share $1: workers (user yarn, uid $(id -u yarn), groups $(id -G yarn)) may not write to its top"
        fi
    fi
}

# ---------------------------------------------------------------- large temporary files

prepare_spill() {  # CANDIDATE...: the first directory that is there; else one on the boot disk
    local folder
    for folder in "$@"; do
        if [[ -d $folder && -w $folder ]]; then
            spill=$folder/mayfly
            break
        fi
    done
    spill=${spill:-$root/spill}
    mkdir -p "$spill"
    chmod 1777 "$spill"
    say "large temporary files go to $spill ($(df -Ph "$spill" | awk 'NR == 2 { print $4 }') free)"
}

yarn_local_dirs() {  # of this node, one a line
    local site=${HADOOP_CONF_DIR:-/etc/hadoop/conf}/yarn-site.xml
    [[ -r $site ]] || return 0
    tr -d '\n' <"$site" | sed -n 's|.*<name>yarn.nodemanager.local-dirs</name>[^<]*<value>\([^<]*\)</value>.*|\1|p' |
        tr ',' '\n' | sed 's|^file://||; s/^ *//; s/ *$//'
}
