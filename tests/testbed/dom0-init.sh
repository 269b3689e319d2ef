#!/bin/sh
# Init of the testbed's Dom0: no systemd. Brings up what a node has (containerd, the Xen daemons, vgpu), runs one script,
# reports through the share `ctl`, powers off.
#
# ctl/settings (from xtask): dist=yes|no (vgpu is installed), share=yes|no, shell=yes|no.
# ctl/up: uptime when everything runs. ctl/out: the script's output. ctl/rc: its exit code. ctl/logs: what the daemons said.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/xen-4.20/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /ctl /dist /mnt/share
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /run/lock /run/xen /run/xenstored /var/log/xen/console /var/lib/xen /var/log/vgpu
hostname dom0
# What pods that say nothing else have of a node.
printf '127.0.0.1 localhost\n::1 localhost\n' > /etc/hosts
echo 'nameserver 192.0.2.1' > /etc/resolv.conf
modprobe -a overlay 9pnet_virtio 9p

share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,cache=none$3" "$1" "$2"; }
share ctl /ctl ""
. /ctl/settings
[ "$dist" = no ] || share dist /dist ,ro
[ "$share" = no ] || share share /mnt/share ""

finish() {
    mkdir -p /ctl/logs
    cp -r /var/log/xen /var/log/vgpu /tmp/containerd.log /ctl/logs/ 2>/dev/null
    dmesg > /ctl/logs/dmesg 2>/dev/null
    xl dmesg > /ctl/logs/xen-dmesg 2>/dev/null
    echo "=== DONE" > /dev/console
    sync
    busybox poweroff -f
}

# The user's way: the files of target/dist are the files of the package.
[ "$dist" = no ] || tar -C /dist --owner=0 --group=0 -c etc usr | tar -C / -x --no-overwrite-dir

# containerd starts beside the Xen daemons, which wait for each other.
containerd > /tmp/containerd.log 2>&1 &
modprobe -a xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs
mount -t xenfs xenfs /proc/xen    # only after xen-privcmd
xenstored --pid-file /run/xenstored.pid
xen-init-dom0 > /tmp/xen-init-dom0.log
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid
ip link set lo up
[ "$dist" = no ] || sh /ctl/vgpu-up.sh > /var/log/vgpu/up.log 2>&1 || { echo "vgpu did not start"; cat /var/log/vgpu/up.log; } >> /ctl/out
timeout 120 ctr version > /dev/null 2>&1 || { echo "containerd did not start"; tail /tmp/containerd.log; } >> /ctl/out
cut -d' ' -f1 /proc/uptime > /ctl/up

cd /root || finish
if [ "$shell" = yes ]; then
    echo "Dom0 of the testbed. 'exit' powers it off; Ctrl-a x ends QEMU at once."
    setsid -c bash -l < /dev/hvc0 > /dev/hvc0 2>&1
    echo $? > /ctl/rc.new
else
    sh /ctl/run.sh >> /ctl/out 2>&1 < /dev/null
    echo $? > /ctl/rc.new
fi
mv /ctl/rc.new /ctl/rc
finish
