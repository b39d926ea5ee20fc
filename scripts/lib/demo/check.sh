#!/bin/sh
# Runs in the demo's system at each start: says on the serial console what the demo needs to know.
# It writes to the device itself: a service's terminal is hung up when the login prompt starts.
# BLAKE2: an emulated processor has no instructions for SHA-256.
cd / || exit 1
files=$(cat /var/lib/fog-demo/root.b2 /var/lib/fog-demo/data.b2 | wc -l)
if b2sum --quiet -c /var/lib/fog-demo/root.b2 && b2sum --quiet -c /var/lib/fog-demo/data.b2; then
  hashes=ok
else
  hashes=bad
fi
root=$(df -B1 --output=size / | tail -n1 | tr -d ' ')
swap=$(awk '/^SwapTotal/ {print $2}' /proc/meminfo)
[ -d /sys/firmware/efi ] && firmware=uefi || firmware=bios
change=$(cat /srv/change 2>/dev/null)
echo "FOG-DEMO hashes=$hashes files=$files root=$root swap=$swap firmware=$firmware change=${change:-none} end" >/dev/ttyS0
