#!/busybox sh
# The least that is a pod's network for containerd: its loopback, and an address that nobody has.
# Source: CNI specification 0.4.0, "Network Configuration".
set -eu
case $CNI_COMMAND in
ADD)
    /busybox nsenter --net="$CNI_NETNS" /busybox ip link set lo up
    echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],'
    echo '"ips":[{"version":"4","address":"192.0.2.7/24","interface":0}]}'
    ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
