#!/bin/bash
# Boot this machine's own files in a throw-away overlay, run a probe in there as the last thing that
# systemd starts, and exit with the probe's status. Nothing on the machine changes.
#
#   boot.sh PROBE OUT_DIR [--bind-ro=SOURCE:TARGET ...] -- COMMAND...
#
# Needs root and systemd-nspawn (Debian: systemd-container). COMMAND runs as root in the booted
# system, with PROBE's folder at /probe and OUT_DIR, where its output lands, at /out. There is no
# network but loopback. What it runs has to be visible there: /root and /home are hidden from most
# units, and /tmp is a new one.
set -eu
probe=$(readlink -f "$1"); mkdir -p "$2"; out=$(readlink -f "$2"); shift 2
binds=()
while [ "$1" != "--" ]; do binds+=("$1"); shift; done
shift
work=$(mktemp -d); root=$work/root; mkdir "$root"
cat >"$work/probe.service" <<EOF
[Unit]
Description=probe
Requires=systemd-journald.service
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=$*
TimeoutStartSec=${PROBE_TIMEOUT_S:-240}
# Whatever the priority of the whole: what it watches must not keep it from watching.
Nice=0
CPUSchedulingPolicy=other
StandardOutput=file:/out/out.txt
StandardError=file:/out/out.txt
# One that was ended by a signal has that signal's name for a status.
ExecStopPost=/bin/sh -c 'case "\$EXIT_STATUS" in *[!0-9]*) set 124;; *) set "\$EXIT_STATUS";; esac; exec systemctl --no-block exit "\$1"'
EOF
mount --bind / "$root"; mount --make-private "$root"
trap 'umount "$root"; rm -rf "$work"' EXIT
# nspawn that is ended from outside leaves processes behind: the probe's own bound is the shorter one.
timeout -k 5 "$((${PROBE_TIMEOUT_S:-240} + 30))" systemd-nspawn -b -D "$root" --volatile=overlay \
  --private-network --register=no --keep-unit --console=read-only \
  --bind-ro="$(dirname "$probe"):/probe" --bind="$out:/out" "${binds[@]}" \
  --bind-ro="$work/probe.service:/etc/systemd/system/probe.service" \
  systemd.unit=probe.service </dev/null >"$out/console.log" 2>&1
