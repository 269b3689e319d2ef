#!/bin/busybox sh
# First program of Dom0: finds the disk, puts today's init on it (the disk is a snapshot) and goes there.
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done < /modules/list
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 300 ]; do /bin/busybox sleep 0.1; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /new || { echo "testbed: no disk"; exec /bin/busybox poweroff -f; }
/bin/busybox cp /dom0-init.sh /new/dom0-init
/bin/busybox umount /dev
exec /bin/busybox switch_root /new /dom0-init
