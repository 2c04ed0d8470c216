#!/bin/bash
# One `flowrun serve` deploys a fleet of lab nodes at once, and what that costs is told.
#
#     benches/fleet.sh [NODES [FLOWRUN]]
#
# FLOWRUN is a release binary. The lab and the daemon are processes of their own, so that the
# daemon's memory and CPU can be told from what the simulated servers take; all share this machine.
# Needs bash, curl and jq, and 100 MiB of disk for each node.
set -euo pipefail

nodes=${1:-200}
program=$(realpath "${2:-target/release/flowrun}")
folder=$(mktemp -d)
cd "$folder"

finish() {
  for process in ${prober:-} ${server:-} ${lab:-}; do kill "$process" 2>/dev/null || true; done
  wait
  rm -rf "$folder"
}
trap finish EXIT

until_said() { # FILE TEXT
  until grep -q "$2" "$1" 2>/dev/null; do sleep 0.1; done
}

"$program" lab up --lab-dir lab --nodes "$nodes" >lab.json 2>lab.log &
lab=$!
until_said lab.log "the site is up"
"$program" serve --lab-dir lab 2>serve.log &
server=$!
until_said serve.log "listening on"
url=$(jq -r .api.url lab.json)
ca=$(jq -r .ca_file lab.json)

# The lab's image, and behind its partitions random bytes, up to 64 MiB.
image=$folder/image.raw
cp --sparse=always lab/images/lab-image.raw "$image"
head -c $((64 * 1024 * 1024 - $(stat -c %s "$image"))) /dev/urandom >>"$image"
checksum=$(sha256sum "$image" | cut -d' ' -f1)

# Four times a second, how long an operator waits for an answer. Not a ramdisk: its callbacks that
# are refused are counted against its address, which all lab nodes share.
while sleep 0.25; do
  curl --silent --cacert "$ca" --max-time 60 --output /dev/null \
    --write-out "%{http_code} %{time_total}\n" "$url/v1/runs?limit=1" || true
done >probes 2>/dev/null &
prober=$!

names=$(seq --format "--node lab-%.0f" "$nodes")
began=$(date +%s.%N)
# shellcheck disable=SC2086 # words of their own
"$program" ilo_vmedia_iscsi $names --server "$url" --ca-file "$ca" --json \
  --set "instance_info.image_source=$image" --set "instance_info.image_checksum=$checksum" >events 2>client.log ||
  echo "the client ended with $?"
ended=$(date +%s.%N)
kill "$prober"

cpu() { # PROCESS: user and system time in clock ticks
  awk '{ print $14 + $15 }' "/proc/$1/stat"
}
memory() { # PROCESS
  awk '/^VmHWM/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"
}
tick=$(getconf CLK_TCK)
calls=$(curl --silent --cacert "$ca" "$url/metrics" |
  awk '/^flowrun_call_duration_seconds_count/ { sum += $2 } END { print sum }')
took=$(echo "$began $ended" | awk '{ printf "%.1f", $2 - $1 }')

echo "nodes      $nodes, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg) at the end"
echo "runs       $(jq -r 'select(.event == "run_finished").status' events |
  sort | uniq -c | awk '{ printf "%s%s %s", sep, $1, $2; sep = ", " }')"
echo "time       $took s"
echo "daemon     $(memory "$server") MiB at its peak, $(cpu "$server" |
  awk -v tick="$tick" '{ printf "%.1f", $1 / tick }') s of CPU"
echo "lab        $(memory "$lab") MiB at its peak, $(cpu "$lab" |
  awk -v tick="$tick" '{ printf "%.1f", $1 / tick }') s of CPU"
echo "calls      $calls, $(echo "$calls $took" | awk '{ printf "%.0f", $1 / $2 }') a second"
sort -k2 -n probes | awk '
  { code[$1]++; took[NR] = $2 }
  END {
    for (c in code) codes = codes " " c " x" code[c]
    printf "API        median %.3f s, 95 %% %.3f s, most %.3f s; answers%s\n",
      took[int((NR + 1) / 2)], took[int(NR * 0.95 + 0.5)], took[NR], codes
  }'
jq -r 'select(.event == "run_finished" and .status != "done")
  | "\(.node) \(.status): \(.error.op) \(.error.message)"' events | sort -k2 | uniq -c -f1 | head -20
