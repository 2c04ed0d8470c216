#!/bin/bash
# Plays the deploy ramdisk of Ironic's early releases (diskimage-builder's `deploy-ironic`) with the
# same tools: mtools reads the floppy, tgtd exports the disk, curl calls, nc waits for the end.
# classic_ramdisk.sh FLOPPY DISK ADDRESS IQN ERROR
set -euo pipefail
floppy=$1 disk=$2 address=$3 iqn=$4 error=$5
work=$(mktemp -d)
export TGT_IPC_SOCKET=$work/ipc
# With targets, tgtd does not end by SIGTERM.
cleanup() { kill -KILL "${daemon:-}" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

# By label, in lower case as in /dev/disk/by-label.
label=$(minfo -i "$floppy" :: 2>/dev/null | sed -n 's/^disk label="\(.*\)"$/\1/p' | tr -d ' ')
[ "$label" = ir-vfd-dev ] || { echo "the label is '$label'"; exit 1; }
mcopy -i "$floppy" ::parameters.txt "$work/parameters.txt"
mcopy -i "$floppy" ::token "$work/token"

# The first `name=` word counts.
parameter() { tr -s ' \n' '\n\n' <"$work/parameters.txt" | sed -n "s/^$1=//p" | head -n 1; }
for name in iscsi_target_iqn deployment_id deployment_key ironic_api_url disk BOOTIF; do
  [ -n "$(parameter $name)" ] || { echo "no parameter $name"; exit 1; }
done
[ -n "$iqn" ] || iqn=$(parameter iscsi_target_iqn)

tgtd -f -C 1 --iscsi "portal=$address:3260" >/dev/null 2>&1 &
daemon=$!
adm() { tgtadm -C 1 --lld iscsi "$@"; }
for _ in $(seq 100); do adm --mode system --op show >/dev/null 2>&1 && break; sleep 0.1; done
adm --mode target --op new --tid 1 --targetname "$iqn"
adm --mode logicalunit --op new --tid 1 --lun 1 --backing-store "$disk"
adm --mode target --op bind --tid 1 --initiator-address ALL

# Every key, always as a string; the answer is ignored.
body=$(printf '{"address":"%s","key":"%s","iqn":"%s","error":"%s"}' \
  "$address" "$(parameter deployment_key)" "$iqn" "$error")
curl -sk -X POST -H "X-Auth-Token: $(cat "$work/token")" -H 'Accept: application/json' \
  -H 'Content-Type: application/json' -d "$body" \
  "$(parameter ironic_api_url)/v1/nodes/$(parameter deployment_id)/vendor_passthru/pass_deploy_info" \
  || true
[ -z "$error" ] || exit 0
echo waiting
nc -l "$address" 10000
echo
echo rebooting
