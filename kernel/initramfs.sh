#!/bin/sh
# Makes the guest's initramfs: a plain newc cpio with PID 1 and the libraries that go into GPU containers.
#
# usage: kernel/initramfs.sh KERNEL_OUT_DIR GUEST_INIT OUT_FILE [LIBRARY...]
#
# KERNEL_OUT_DIR: what build.sh made (its gen_init_cpio creates device nodes without root). Each LIBRARY (libcuda.so.1, …) goes to
# /usr/lib/vgpu under its own file name. Not compressed: Xen 4.20 unpacks none, and the file is small.
set -eu

die() { echo "kernel/initramfs.sh: $*" >&2; exit 1; }

[ $# -ge 3 ] || die "usage: kernel/initramfs.sh KERNEL_OUT_DIR GUEST_INIT OUT_FILE [LIBRARY...]"
gen=$1/gen_init_cpio
init=$2
out=$3
shift 3
[ -x "$gen" ] || die "$gen is missing: run kernel/build.sh first"
[ -f "$init" ] || die "no such file: $init"

list=$(mktemp)
trap 'rm -f "$list"' EXIT
{
    # PID 1 makes every other directory itself; these three exist before it runs.
    echo "dir /dev 755 0 0"
    echo "nod /dev/console 600 0 0 c 5 1"
    echo "nod /dev/null 666 0 0 c 1 3"
    echo "file /init $init 755 0 0"
    echo "dir /usr 755 0 0"
    echo "dir /usr/lib 755 0 0"
    echo "dir /usr/lib/vgpu 755 0 0"
    for library in "$@"; do
        [ -f "$library" ] || die "no such file: $library"
        echo "file /usr/lib/vgpu/$(basename "$library") $library 755 0 0"
    done
} >"$list"
# -t: the same date always, so that the same files give the same image.
"$gen" -t 0 "$list" >"$out.tmp"
mv "$out.tmp" "$out"

size=$(stat -c %s "$out")
[ "$size" -le $((12 * 1024 * 1024)) ] || die "$out has $size bytes; a pod pays for each of them, the limit is 12 MiB"
echo "initramfs: $out, $size bytes"
