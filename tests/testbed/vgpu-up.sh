#!/bin/sh
# Does what a node's administrator and its systemd do: the configuration for this small machine, the cgroup that
# gpu-proxy.service delegates, the daemon itself.
set -eu
# The testbed has one emulated CPU for each of two guests, and 6 GiB or less for all of them.
sed -i -e 's/^memory_mib = .*/memory_mib = 256/' -e 's/^vcpus = .*/vcpus = 1/' /etc/vgpu/config.toml
# A guest that boots beside another one, emulated in a PVH Dom0, was seen to need 45 s.
sed -i 's/^boot_timeout_s = .*/boot_timeout_s = 180/' /etc/vgpu/config.toml
# Nor is a guest hung that takes more than 2 s to answer here.
sed -i 's/^kill_timeout_s = .*/kill_timeout_s = 15/' /etc/vgpu/config.toml

unit=/sys/fs/cgroup/system.slice/gpu-proxy.service
# A service that starts again finds its cgroup empty: what an end left there is killed and removed.
while [ -d "$unit" ]; do
    echo 1 > "$unit/cgroup.kill"
    find "$unit" -depth -type d -exec rmdir {} + 2> /dev/null || sleep 0.1
done
mkdir -p "$unit"
for group in /sys/fs/cgroup /sys/fs/cgroup/system.slice; do
    echo "+memory +pids +cpu" > "$group/cgroup.subtree_control"
done
mkdir -p -m 0700 /run/vgpu
# Of the unit: RuntimeDirectory, Delegate, LimitCORE, LimitNOFILE; a TasksMax to lift there is not. Left out is what takes systemd itself:
# ProtectHome, PrivateTmp, ProtectKernelModules, RestrictSUIDSGID. Each start by systemd has a number.
INVOCATION_ID=$(tr -d - < /proc/sys/kernel/random/uuid)
export INVOCATION_ID
files=$(sed -n 's/^LimitNOFILE=//p' /usr/lib/systemd/system/gpu-proxy.service)
setsid sh -c "echo \$\$ > $unit/cgroup.procs; ulimit -c 0; ulimit -n $files; exec gpu-proxy" > /var/log/vgpu/gpu-proxy.log 2>&1 < /dev/null &
tries=0
# A socket alone says nothing: one that was killed left its own.
until vgpuctl info > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "gpu-proxy does not answer after 20 s:"; tail -20 /var/log/vgpu/gpu-proxy.log; exit 1; }
    sleep 0.1
done
