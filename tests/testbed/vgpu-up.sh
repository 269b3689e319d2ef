#!/bin/sh
# Starts what a node's systemd starts.
set -e
setsid gpu-proxy > /var/log/vgpu/gpu-proxy.log 2>&1 &
