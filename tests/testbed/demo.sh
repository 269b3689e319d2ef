#!/bin/sh
# Runs in Dom0: two pods with CUDA programs at once, each a Xen domain of its own, and what is left when they have ended.
image=docker.io/library/cuda-tests:1
failed=0
say() { printf '\n=== %s\n' "$*"; }
must() { "$@" || { echo "*** this failed: $*"; failed=1; }; }
pod() {
    name=$1
    shift
    ctr run --rm --runtime io.containerd.vgpu.v1 --annotation vgpu.dev/gpu=1 "$image" "$name" "$@"
}
inside='echo "hypervisor: $(cat /sys/hypervisor/type), kernel: $(uname -r), pid 1: $(cat /proc/1/comm)"
        /vector_add; echo "exit code of vector_add: $?"; echo ready'

say "two pods at once"
# They say themselves when they are ready, or over: a loop that looks would take Dom0's one CPU away from them.
rm -f /tmp/ready
mkfifo /tmp/ready
exec 3<> /tmp/ready
# Blue ends with a code of its own when it is asked to, red has to be killed.
start() {
    echo "\$ ctr run --runtime io.containerd.vgpu.v1 --annotation vgpu.dev/gpu=1 $image $1 sh -c '...; /vector_add; ...' &"
    {
        { pod "$1" sh -c "$inside; $2" 2>&1; echo $? > "/tmp/$1.code"; } | while IFS= read -r line; do
            if [ "$line" = ready ]; then echo "$1" >&3; else echo "$line"; fi
        done > "/tmp/$1.out"
        echo "$1" >&3
    } &
}
start red 'exec sleep 1000'
start blue 'trap "exec /exit7" USR1; while :; do sleep 0.2; done'
timeout 240 head -n 2 <&3 > /dev/null || { echo "*** the pods are not ready after four minutes"; failed=1; }
echo "\$ xl list"
xl list
for name in red blue; do
    say "what pod $name says"
    cat /tmp/$name.out
    must grep -q '^exit code of vector_add: 0$' /tmp/$name.out
    must grep -Eq '^hypervisor: xen, kernel: [^ ]+-vgpu, pid 1: sh$' /tmp/$name.out
done
[ "$(xl list | tail -n +3 | wc -l)" = 2 ] || { echo "*** there should be two domains beside Dom0"; failed=1; }

say "exit codes come back"
echo "\$ ctr task kill -s SIGKILL red; ctr task kill -s SIGUSR1 blue    # blue's program then leaves with 7"
must ctr task kill -s SIGKILL red
must ctr task kill -s SIGUSR1 blue
wait
for name in red blue; do echo "exit code of ctr run for $name: $(cat /tmp/$name.code)"; done
must [ "$(cat /tmp/red.code)" = 137 ]
must [ "$(cat /tmp/blue.code)" = 7 ]

say "what is left"
tries=0
left() {
    domains=$(xl list) || echo "xl list failed"
    echo "$domains" | tail -n +3
    pgrep -a containerd-shim
    grep /run/vgpu/ /proc/mounts
    ls -d /run/containerd/s/* /run/vgpu/sandboxes/* /run/vgpu/shared/* 2> /dev/null
    pgrep -f 'gpu-proxy worker' -a
}
while [ -n "$(left)" ] && [ $tries -lt 40 ]; do
    tries=$((tries + 1))
    sleep 0.5
done
echo "domains, shims, mounts, sockets, state, workers:"
if [ -z "$(left)" ]; then echo "none"; else
    left
    failed=1
fi
exit $failed
