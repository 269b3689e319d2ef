#!/bin/sh
# The stories, as one script of the testbed; then what shows that it keeps its word: the share is read and written, the memory is told,
# and an exit code that nothing else has goes back in the place of 0.
cp /ctl/vgpu-stories /tmp/vgpu-stories
# For cases of tests/contract.
VGPU_INSIDE=/ctl/inside /tmp/vgpu-stories "$@"
code=$?
{ cat /mnt/share/question; xl info | sed -n 's/^total_memory *: //p'; } > /mnt/share/answer
[ $code -ne 0 ] || exit 3
exit $code
