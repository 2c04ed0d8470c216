#!/bin/busybox sh
# The deployed system: says what it runs from and what it found.
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs run /run
/bin/busybox mkdir /run/bin /run/mnt; /bin/busybox --install -s /run/bin
export PATH=/run/bin
exec >/dev/ttyS0 2>&1 </dev/null
echo "@instance up"
echo "@cmdline $(cat /proc/cmdline)"
echo "@root $(awk '$2 == "/" && $1 != "rootfs" { print $1, $3 }' /proc/mounts)"
echo "@firmware $([ -d /sys/firmware/efi ] && echo UEFI || echo BIOS)"
for f in /data/*; do echo "@file ${f##*/} $(sha256sum <$f)"; done
swap=$(findfs LABEL=swap1 2>/dev/null) && swapon $swap &&
  echo "@swap $(awk 'NR == 2 { print $1, $3 }' /proc/swaps)"
ephemeral=$(findfs LABEL=ephemeral0 2>/dev/null) && mount -t ext4 $ephemeral /run/mnt && {
  echo kept >>/run/mnt/boots
  echo "@ephemeral $ephemeral $(df -m /run/mnt | awk 'NR == 2 { print $2 }') boots $(wc -l </run/mnt/boots)"
  umount /run/mnt
}
config=$(findfs LABEL=config-2 2>/dev/null) && mount -t iso9660 -o ro $config /run/mnt && {
  echo "@config $config $(cat /run/mnt/openstack/latest/meta_data.json)"
  umount /run/mnt
}
echo "@end"
# Stays up, as a server does, unless it is to show that it can go.
grep -qw then=poweroff /proc/cmdline && poweroff -f
while :; do sleep 3600; done
