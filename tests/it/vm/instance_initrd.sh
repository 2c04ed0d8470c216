#!/bin/busybox sh
# Finds the root of the deployed system by its UUID, as a distribution's ramdisk does.
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
for m in $(cat /order); do insmod /$m.ko; done
uuid=$(sed 's/.*root=UUID=\([^ ]*\).*/\1/' /proc/cmdline)
for try in $(seq 300); do root=$(findfs UUID=$uuid 2>/dev/null) && break; sleep 0.1; done
[ -n "$root" ] || { echo "@no-root $uuid"; cat /proc/partitions; poweroff -f; }
mount -t ext4 -o ro $root /new || poweroff -f
mount --move /dev /new/dev; umount /proc; umount /sys
exec switch_root /new /sbin/init
