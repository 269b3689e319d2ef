#!/bin/sh
# Makes the tree of the testbed's Dom0. As root, in a mount namespace of its own: nothing stays mounted whatever happens.
#
# dom0-tree.sh OUT SUITE PACKAGES     apt sources on standard input; OUT exists
# Leaves in OUT: tree.tar, xen (multiboot ELF), vmlinuz, busybox, modules/*.ko with modules/list in the order of loading,
# glibc.tar (the layer of images whose programs need a C library).
set -eu
out=$1 suite=$2 packages=$3
# We may be a user's sudo: what lies in the user's cache has to be the user's, however this ends.
trap 'chown -R --reference="$(dirname "$out")" "$out"' EXIT
work=$(mktemp -d)
mount -t tmpfs -o size=4g testbed "$work"
tree=$work/tree

# Documentation, translations and the drivers that a virtual machine has no use for: a third of the size and of the time.
set -f
exclude=
for path in man locale doc iso-codes bash-completion; do
    exclude="$exclude --dpkgopt=path-exclude=/usr/share/$path/*"
done
for path in sound drivers/gpu drivers/media drivers/staging drivers/iio drivers/usb drivers/scsi drivers/hwmon \
    drivers/input drivers/mtd drivers/bluetooth drivers/infiniband drivers/net/wireless drivers/net/ethernet; do
    exclude="$exclude --dpkgopt=path-exclude=/usr/lib/modules/*/kernel/$path/*"
done
# Of CNI's plugins those that no story has a use for.
for plugin in dhcp firewall host-device ipvlan macvlan sbr static vlan vrf; do
    exclude="$exclude --dpkgopt=path-exclude=/usr/lib/cni/$plugin"
done
# shellcheck disable=SC2086 # the options are to be split
INITRD=No mmdebstrap --mode=root --variant=essential --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io --dpkgopt=force-confold $exclude \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"' \
    --include="$packages,libstdc++6,zlib1g" "$suite" "$tree" -
set +f

# mmdebstrap copies the host's mirror, resolver and name into the tree.
rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/etc/apt/sources.list.d/* \
    "$tree"/etc/resolv.conf "$tree"/etc/hostname

gunzip -c "$tree"/boot/xen-*-amd64.gz > "$out/xen"
cp "$tree"/boot/vmlinuz-* "$out/vmlinuz"
cp "$tree/bin/busybox" "$out/busybox"
version=$(ls "$tree/usr/lib/modules")
mkdir "$out/modules"
for module in crc32c_generic virtio_blk ext4; do
    modprobe -d "$tree" -S "$version" --show-depends "$module"
done | while read -r verb file _; do
    # crc32c-intel needs SSE4.2, which the emulated CPU may lack; crc32c_generic does.
    case $verb:$file in insmod:*crc32c-intel*) continue ;; insmod:*) ;; *) continue ;; esac
    name=$(basename "$file" .xz)
    [ ! -e "$out/modules/$name" ] || continue
    case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac > "$out/modules/$name"
    echo "$name" >> "$out/modules/list"
done
rm -rf "$tree"/boot
{
    printf '%s\n' ./bin ./lib ./lib64 ./sbin ./usr ./usr/bin ./usr/lib ./usr/lib64 ./usr/sbin
    dpkg-query --admindir="$tree/var/lib/dpkg" -L libc6 libgcc-s1 libstdc++6 zlib1g |
        grep -E '^/usr/(lib|lib64)/' | grep -Ev '/(gconv|audit)(/|$)' | sed 's/^/./' | sort -u
} | (cd "$tree" && while read -r path; do [ ! -e "$path" ] || echo "$path"; done) |
    tar -C "$tree" --numeric-owner --no-recursion --mtime=@0 -cf "$out/glibc.tar" -T -
tar -C "$tree" --numeric-owner --xattrs -cf "$out/tree.tar" .
chmod -R a+rX "$out"
