#!/bin/busybox sh
# A deploy ramdisk to the contract of Ironic's early ones (diskimage-builder's `deploy-ironic`), of
# busybox and the kernel's own iSCSI target, or tgtd if the archive has it.
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
echo "@ramdisk $(cat /proc/cmdline)"

give_up() { echo "@gave-up $1"; sleep 30; poweroff -f; }
grep -qw boot_method=vmedia /proc/cmdline || give_up "not booted from virtual media"
for m in $(cat /order); do insmod /$m.ko delay_use=0 2>/dev/null || insmod /$m.ko; done

# findfs takes whatever has the label; the parameters are on a medium that can be removed.
until floppy=$(findfs LABEL=ir-vfd-dev 2>/dev/null); do sleep 0.1; done
mkdir -p /mnt && mount -t vfat -o ro "$floppy" /mnt
# The first `name=` word counts.
parameter() { tr -s ' \n' '\n\n' </mnt/parameters.txt | sed -n "s/^$1=//p" | head -n 1; }
url="$(parameter ironic_api_url)/v1/nodes/$(parameter deployment_id)/vendor_passthru/pass_deploy_info"
iqn=$(parameter iscsi_target_iqn)

ip link set lo up
for nic in /sys/class/net/*; do
  [ "$(cat $nic/address)" = "$(parameter BOOTIF)" ] && nic=${nic##*/} && break
done
ip link set $nic up
udhcpc -i $nic -n -q -f -s /bound | tail -n 1
address=$(ip -4 addr show $nic | sed -n 's/.* inet \([0-9.]*\).*/\1/p')

call() {
  body=$(printf '{"address":"%s","key":"%s","iqn":"%s","error":"%s"}' \
    "$address" "$(parameter deployment_key)" "$iqn" "$1")
  for try in $(seq 60); do
    curl -sSk -X POST -H "X-Auth-Token: $(cat /mnt/token)" -H 'Accept: application/json' \
      -H 'Content-Type: application/json' -d "$body" "$url" && echo && return
    sleep 1
  done
  give_up "the callback is not accepted"
}

# `disk` names some; `root_device` says what the disk is.
fits() {
  for hint in $(parameter root_device | tr ',' ' '); do
    found=
    case $hint in
      size=*) found=size=$(($(cat $1/size) / 2097152)) ;;
      serial=*) found=serial=$(tail -c +5 $1/device/vpd_pg80 | tr -d ' ') ;;
    esac
    [ "$found" = "$hint" ] || return 1
  done
}
for try in $(seq 100); do
  for name in $(parameter disk | tr ',' ' ') sda; do
    block=/sys/block/$name
    [ -e $block ] && [ "$(cat $block/removable)" = 0 ] && fits $block && disk=/dev/$name && break 2
  done
  sleep 0.1
done
[ -n "$disk" ] || { call "no disk is $(parameter root_device)"; give_up "no disk"; }

if [ -x /bin/tgtd ]; then
  export TGT_IPC_SOCKET=/tgtd
  tgtd >/dev/null 2>&1
  for try in $(seq 100); do tgtadm --mode sys --op show >/dev/null 2>&1 && break; sleep 0.1; done
  adm() { tgtadm --lld iscsi "$@"; }
  adm --mode target --op new --tid 1 --targetname "$iqn"
  adm --mode logicalunit --op new --tid 1 --lun 1 --backing-store $disk
  adm --mode target --op bind --tid 1 -I ALL
else
  mount -t configfs configfs /sys/kernel/config
  mkdir -p /etc/target
  lio=/sys/kernel/config/target
  mkdir -p $lio/core/iblock_0/disk
  printf udev_path=$disk >$lio/core/iblock_0/disk/control
  echo 1 >$lio/core/iblock_0/disk/enable
  portal=$lio/iscsi/$iqn/tpgt_1
  mkdir -p $portal && mkdir $portal/lun/lun_1
  ln -s $lio/core/iblock_0/disk $portal/lun/lun_1/disk
  mkdir $portal/np/0.0.0.0:3260
  echo 0 >$portal/attrib/authentication; echo 1 >$portal/attrib/generate_node_acls
  echo 0 >$portal/attrib/demo_mode_write_protect; echo 1 >$portal/attrib/cache_dynamic_acls
  echo 1 >$portal/enable
fi 2>&1 | sed 's/^/export: /'

# It listens before the call: the answer may be fast.
nc -l -p 10000 </dev/null >/said &
waiter=$!
call ""
echo "@waiting $disk, CPU $(awk '/^cpu / { print $2 + $4, $5 }' /proc/stat)"
wait $waiter
echo "@said $(cat /said), CPU $(awk '/^cpu / { print $2 + $4, $5 }' /proc/stat)"
sync
reboot -f
