#!/bin/sh
# Makes the disk image of the testbed's Dom0 from its tree, with container images already imported: importing them in the
# emulated Dom0 would take six seconds each. As root, in mount and pid namespaces of its own.
#
# dom0-disk.sh OUT TREE_TAR [OCI_TAR...]     leaves OUT/disk.img
set -eu
out=$1 tree_tar=$2
shift 2
# We may be a user's sudo: what lies in the user's cache has to be the user's, however this ends.
trap 'chown -R --reference="$(dirname "$out")" "$out"' EXIT
work=$(mktemp -d)
mount -t tmpfs -o size=6g testbed "$work"
tree=$work/tree
mkdir "$tree"
tar -C "$tree" --numeric-owner --xattrs -xf "$tree_tar"

mkdir -p "$tree/etc/containerd" "$tree/etc/xen"
cat > "$tree/etc/containerd/config.toml" <<'END'
version = 2
# The testbed speaks to containerd with ctr: without CRI and the unused snapshotters it starts in a third of the time.
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.blockfile"]
# When it comes back it takes a shim that is late for a dead one, and ends the pod. A real node's shims have its defaults (5 s for all that is
# asked of one then, 5 s for its cleaning, 3 s for its end, 2 s for a state); emulation is some ten times slower.
[timeouts]
"io.containerd.timeout.shim.load" = "50s"
"io.containerd.timeout.shim.cleanup" = "50s"
"io.containerd.timeout.shim.shutdown" = "30s"
"io.containerd.timeout.task.state" = "20s"
END
cat > "$tree/etc/xen/xl.conf" <<'END'
# Dom0 has CPU 0 for itself: a polling guest would take it away.
vm.cpumask="1-15"
autoballoon="off"
END
echo 'root:x:0:0:root:/root:/bin/bash' > "$tree/etc/passwd.root"
grep -v '^root:' "$tree/etc/passwd" >> "$tree/etc/passwd.root"
mv "$tree/etc/passwd.root" "$tree/etc/passwd"

if [ $# -gt 0 ]; then
    mount -t proc proc "$tree/proc"
    mount -t tmpfs run "$tree/run"
    mount -t tmpfs tmp "$tree/tmp"
    mount --bind /dev "$tree/dev"
    chroot "$tree" /usr/bin/containerd > "$out/containerd.log" 2>&1 &
    daemon=$!
    for image in "$@"; do
        cp "$image" "$tree/tmp/image.tar"
        timeout 60 chroot "$tree" /usr/bin/ctr images import /tmp/image.tar
    done
    kill "$daemon"
    wait "$daemon" || true
    umount "$tree/dev" "$tree/tmp" "$tree/run" "$tree/proc"
    rm "$out/containerd.log"
fi

truncate -s 3G "$work/disk.img"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -d "$tree" "$work/disk.img"
cp --sparse=always "$work/disk.img" "$out/disk.img"
chmod a+r "$out/disk.img"
