#!/usr/bin/env bash
# Initialization action of a Dataproc cluster: runs as root on every node, also on those that come later. What it has to
# do stands in the instance's metadata (mayfly-*), and what it did below staging; see lib.sh.
# The uploaded file holds lib.sh in the place of the next command.
# shellcheck source=init_actions/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

gcs=${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}
[[ $gcs == *://* ]] || gcs=http://$gcs
knox=${KNOX_HOME:-/usr/lib/knox}
topology=${KNOX_TOPOLOGY:-/etc/knox/conf/topologies/default.xml}

# ---------------------------------------------------------------- what Google says and keeps

metadata() {  # PATH: below computeMetadata/v1; empty where there is none
    local base=http://${GCE_METADATA_HOST:-metadata.google.internal} status=0 answer
    answer=$(curl -sS -f --noproxy '*' --connect-timeout 2 --max-time 10 --retry 3 --retry-delay 1 --retry-connrefused \
        -H 'Metadata-Flavor: Google' "$base/computeMetadata/v1/$1" 2>&1) || status=$?
    case $status in
        0) printf '%s' "$answer" ;;
        22) [[ $answer == *404* ]] || fail "the metadata server refused $1: $answer" ;;
        *) fail "no metadata server at $base ($answer): this runs on nodes of a Dataproc cluster only" ;;
    esac
}

authorization() {  # curl's configuration with our access token: not an argument, which everybody could read
    [[ -z $token ]] || printf 'header = "Authorization: Bearer %s"\n' "$token"
}

encoded() {  # as one segment of a URL
    local LC_ALL=C text=$1 out="" character i
    for ((i = 0; i < ${#text}; i++)); do
        character=${text:i:1}
        case $character in
            [a-zA-Z0-9._~-]) out+=$character ;;
            *) out+=$(printf '%%%02X' $(($(printf '%d' "'$character") & 255))) ;;
        esac
    done
    printf '%s' "$out"
}

in_bucket() { printf '%s' "${prefix:+$prefix/}$1"; }

object_get() {
    # No --retry: what was written before it would stay written.
    authorization | curl -sS -f -K - --connect-timeout 10 --speed-limit 10000 --speed-time 60 \
        --write-out '%{stderr}HTTP %{http_code}' "$gcs/storage/v1/b/$bucket/o/$(encoded "$(in_bucket "$1")")?alt=media"
}

# shellcheck disable=SC2034  # both are read in lib.sh
get_failed() {  # PATH STATUS: sets `problem` and `problem_kind` (1 = for good, 2 = try again); false = not curl's doing
    local said where
    where=gs://$bucket/$(in_bucket "$1")
    said=$(tr '\n' ' ' <"$root/get.log")
    problem_kind=1
    case $said in
        *"HTTP 404"*) problem="$where is missing; clear the run to plan anew, which uploads it" ;;
        *"HTTP 401"* | *"HTTP 403"*)
            problem="no access to $where: ${said%% HTTP*}; the nodes' service account needs the role "
            problem+="roles/storage.objectUser on the bucket"
            ;;
        *)
            (($2 != 23)) || return 1  # it could not write on: who read it had ended
            problem="cannot read $where: $said"
            problem_kind=2
            ;;
    esac
}

object_put() {
    local name
    name=$(encoded "$(in_bucket "$1")")
    curl -sS -f -o /dev/null -K <(authorization) --connect-timeout 5 --max-time 15 --retry 2 --data-binary @- \
        -H 'Content-Type: application/json' "$gcs/upload/storage/v1/b/$bucket/o?uploadType=media&name=$name"
}

# ---------------------------------------------------------------- Dask's dashboard in the component gateway

gateway() {  # PORT: two services of Knox (pages, web sockets), where Knox is; the node is ready without them, too
    local port=$1 service
    [[ -d $knox && -w $topology ]] || return 0
    for service in dask:http daskws:ws; do
        knox_service "${service%:*}" "${service#*:}" "$knox/data/services/${service%:*}/1.0.0"
    done
    if ! grep -q '<role>DASK</role>' "$topology"; then
        sed -i "s|</topology>|<service><role>DASK</role><url>http://localhost:$port</url></service>\\n<service><role>DASKWS</role><url>ws://localhost:$port</url></service>\\n</topology>|" "$topology"
    fi
    if id knox >/dev/null 2>&1; then
        chown -R knox "$knox/data/services/dask" "$knox/data/services/daskws"
    fi
    if command -v systemctl >/dev/null && systemctl is-active --quiet knox; then
        systemctl restart --no-block knox
    fi
    dashboard=$port
    say "the component gateway shows port $port as /gateway/default/dask/"
}

knox_service() {  # NAME SCHEME FOLDER
    local name=$1 scheme=$2 folder=$3 role=${1^^}
    mkdir -p "$folder"
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n<service role="%s" name="%s" version="1.0.0">\n' "$role" "$name"
        printf '  <policies>\n    <policy role="webappsec"/>\n    <policy role="authentication" name="Anonymous"/>\n'
        printf '    <policy role="rewrite"/>\n    <policy role="authorization"/>\n  </policies>\n  <routes>\n'
        if [[ $scheme == ws ]]; then
            printf '    <route path="/dask/**/ws"><rewrite apply="DASKWS/daskws/in" to="request.url"/></route>\n'
        else
            for path in '/dask' '/dask/**' '/dask/**?**'; do
                printf '    <route path="%s">\n      <rewrite apply="DASK/dask/in" to="request.url"/>\n' "$path"
                printf '      <rewrite apply="DASK/dask/headers" to="response.headers"/>\n    </route>\n'
            done
        fi
        printf '  </routes>\n'
        printf '  <dispatch classname="org.apache.knox.gateway.dispatch.PassAllHeadersNoChunkedPostDispatch"/>\n'
        printf '</service>\n'
    } >"$folder/service.xml"
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n<rules>\n'
        if [[ $scheme == ws ]]; then
            printf '  <rule dir="IN" name="DASKWS/daskws/in" pattern="ws://*:*/**/dask/{**}/ws">\n'
            # shellcheck disable=SC2016  # Knox's variable
            printf '    <rewrite template="{$serviceUrl[DASKWS]}/{**}/ws"/>\n  </rule>\n'
        else
            printf '  <rule dir="IN" name="DASK/dask/in" flow="OR">\n'
            # shellcheck disable=SC2016
            printf '    <match pattern="*://*:*/**/dask"><rewrite template="%s"/></match>\n' '{$serviceUrl[DASK]}/'
            # shellcheck disable=SC2016
            printf '    <match pattern="*://*:*/**/dask/{**}?{**}"><rewrite template="%s"/></match>\n' \
                '{$serviceUrl[DASK]}/{**}?{**}'
            printf '  </rule>\n'
            # Redirects of the dashboard name its own address.
            printf '  <filter name="DASK/dask/headers"><content type="application/x-http-headers">\n'
            printf '    <apply path="Location" rule="DASK/dask/location"/>\n  </content></filter>\n'
            printf '  <rule dir="OUT" name="DASK/dask/location" flow="OR">\n'
            # shellcheck disable=SC2016
            printf '    <match pattern="%s"><rewrite template="{$frontend[path]}/dask/{**}?{**}"/></match>\n' \
                '*://*:*/{**}?{**}' '/{**}?{**}'
            printf '  </rule>\n'
        fi
        printf '</rules>\n'
    } >"$folder/rewrite.xml"
}

# ---------------------------------------------------------------- the order of things

begin
staging=$(metadata instance/attributes/mayfly-staging)
[[ $staging == gs://?* ]] || fail "the metadata mayfly-staging is '$staging', not gs://bucket/prefix"
bucket=${staging#gs://}
prefix=""
[[ $bucket != */* ]] || prefix=${bucket#*/}
prefix=${prefix%/}
bucket=${bucket%%/*}
cluster=$(metadata instance/attributes/mayfly-cluster)
[[ -n $cluster ]] || fail "there is no metadata mayfly-cluster"
role=$(metadata instance/attributes/dataproc-role)
token=""
if [[ -z ${STORAGE_EMULATOR_HOST:-} ]]; then
    token=$(metadata instance/service-accounts/default/token | json_field access_token)
    [[ -n $token ]] || fail "this node has no service account, so it cannot read $staging"
fi
evidence=runs/$cluster/nodes/$node.json
say "$node is a ${role:-node without a role} of $cluster"

# One by one: a substitution that fails among a command's words would go unseen.
environment=$(metadata instance/attributes/mayfly-environment)
sha256=$(metadata instance/attributes/mayfly-environment-sha256)
shares=$(metadata instance/attributes/mayfly-shares)
install_environment "$environment" "$sha256"
mount_shares "$shares"
mapfile -t folders < <({ compgen -G '/mnt/[0-9]*' || true; } | sort -V; yarn_local_dirs)
prepare_spill "${folders[@]}"
vanishes=$(metadata instance/scheduling/preemptible)
if [[ $vanishes == TRUE ]]; then
    notice=google
    say "this node may be taken away: its workers leave when Google says so"
fi
if [[ $role == Master ]]; then
    gateway 8787 || say "the component gateway will not show Dask's dashboard"
fi
ready
