#!/bin/sh
# Builds the guest kernel from Debian's linux-source: OUT_DIR/vmlinux (stripped ELF) and OUT_DIR/config.
#
# usage: kernel/build.sh OUT_DIR [LINUX_SOURCE_DEB]
#
# Without LINUX_SOURCE_DEB the package comes from the apt sources of this machine. No root, nothing is installed. OUT_DIR/work
# holds the source and the objects (2 GB) and is removed at the end, unless KEEP_WORK=1. Needs what `packages` names.
set -eu

packages="build-essential flex bison bc patch xz-utils libelf-dev libssl-dev"

die() { echo "kernel/build.sh: $*" >&2; exit 1; }

[ $# -ge 1 ] && [ $# -le 2 ] || die "usage: kernel/build.sh OUT_DIR [LINUX_SOURCE_DEB]"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$out/work
for tool in gcc make flex bison bc patch strip dpkg-deb xz; do
    command -v "$tool" >/dev/null || die "$tool is missing (apt install $packages)"
done
for header in libelf.h openssl/ssl.h; do
    echo "#include <$header>" | gcc -E -o /dev/null - 2>/dev/null || die "$header is missing (apt install $packages)"
done

rm -rf "$work"
mkdir -p "$work/linux"
if [ $# -eq 2 ]; then
    deb=$2
    [ -f "$deb" ] || die "no such file: $deb"
else
    echo "kernel: downloading linux-source-6.12"
    # apt's sandbox user cannot write into OUT_DIR; the package's signature is checked all the same.
    apt() { (cd "$work" && apt-get -q -o APT::Sandbox::User="$(id -un)" "$@"); }
    if ! apt download linux-source-6.12; then
        echo "kernel: this machine's package lists are empty or old; fetching some for this build alone"
        mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
        set -- -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache"
        apt "$@" update && apt "$@" download linux-source-6.12 ||
            die "cannot download linux-source-6.12: is its suite in apt's sources? The package may also be passed"
    fi
    deb=$(ls "$work"/linux-source-6.12_*.deb)
fi

echo "kernel: unpacking $(basename "$deb")"
dpkg-deb --fsys-tarfile "$deb" | tar xO ./usr/src/linux-source-6.12.tar.xz | tar xJ -C "$work/linux" --strip-components=1
cd "$work/linux"
for p in "$here"/patches/*.patch; do
    patch -s -p1 <"$p" || die "$(basename "$p") does not apply"
done

# The same input gives the same kernel: no date, user or host name in it.
export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=vgpu KBUILD_BUILD_HOST=vgpu
make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config "$here/guest.config" >/dev/null
make -s olddefconfig
lost=$(grep '^CONFIG_' "$here/guest.config" | grep -vxFf .config || true)
for option in $(sed -n 's/^# \(CONFIG_.*\) is not set$/\1/p' "$here/guest.config"); do
    ! grep -q "^$option=" .config || lost="$lost $option (off)"
done
[ -z "$lost" ] || die "these options did not survive the merge: $lost"

echo "kernel: compiling with $(nproc) jobs"
make -s -j"$(nproc)" vmlinux
cp .config "$out/config"
strip -s -o "$out/vmlinux.tmp" vmlinux
mv "$out/vmlinux.tmp" "$out/vmlinux"
[ -n "${KEEP_WORK:-}" ] || rm -rf "$work"
echo "kernel: $out/vmlinux, $(stat -c %s "$out/vmlinux") bytes"
