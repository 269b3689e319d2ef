#!/bin/sh
# Fetches a suite's containerd without installing it: containerd.sh DIR, with apt's sources on standard input. Leaves DIR/bin.
set -eu
cd "$1"
mkdir -p apt/lists/partial apt/cache/archives/partial
cat > apt/sources
# Its name says which of the two formats it has.
if grep -q '^Types:' apt/sources; then sources=apt/all.sources; else sources=apt/all.list; fi
mv apt/sources "$sources"
# An apt of its own: nothing of the machine's is read but its keys, nothing is written elsewhere.
own_apt() {
    apt-get -q -o Dir::Etc::sourcelist="$PWD/$sources" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$PWD/apt" \
        -o Dir::State::status=/dev/null -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" \
        -o APT::Sandbox::User="" -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}
own_apt update
own_apt download containerd
dpkg-deb --fsys-tarfile containerd_*.deb | tar -xf - ./usr/bin
mv usr/bin bin
rm -r apt usr containerd_*.deb
