# Runs a program with a root of its own, in a mount namespace that is this script's: in-root.sh ROOT WORK CWD PROGRAM...
# ROOT has the program, its libraries, busybox and the directories named here. WORK is seen as /test, WORK/run as /run and WORK/tmp as /tmp.
set -eu
root=$1 work=$2 cwd=$3
shift 3
busybox=$root/busybox
"$busybox" mkdir -p "$work/run" "$work/tmp"
"$busybox" mount --rbind "$root" "$root"
for dir in proc sys dev; do "$busybox" mount --rbind "/$dir" "$root/$dir"; done
"$busybox" mount --bind "$work" "$root/test"
for dir in run tmp; do "$busybox" mount --bind "$work/$dir" "$root/$dir"; done
cd "$root"
"$busybox" pivot_root . old
cd "$cwd"
/busybox umount -l /old
exec "$@"
