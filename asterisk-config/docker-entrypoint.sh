#!/bin/sh
# Fills in the places of the configuration from the environment, then becomes Asterisk. The users, phones and
# contexts of the demo and the tests (*_lab.conf) are not in this image.
set -eu

need() { eval "value=\${$1:-}"; [ -n "$value" ] || { echo "$1 is not set: see .env.example" >&2; exit 64; }; }
need CTI_SECRET
need PHONE_SECRET
need CTI_PERMIT
[ "${#CTI_SECRET}" -ge 16 ] && [ "${#PHONE_SECRET}" -ge 16 ] || { echo "a secret is shorter than 16 characters" >&2; exit 64; }

export BIND="${BIND:-0.0.0.0}" AMI_PORT="${AMI_PORT:-5038}" SIP_PORT="${SIP_PORT:-5060}" HTTP_PORT="${HTTP_PORT:-8088}"
export RTP_START="${RTP_START:-10000}" RTP_END="${RTP_END:-10199}"
export PEER_HOST="${PEER_HOST:-192.0.2.1}" PEER_PORT="${PEER_PORT:-5060}" CTI_INTERNAL="${CTI_INTERNAL:-from-agent}"
export RING_SECONDS="${RING_SECONDS:-15}" WAIT_SECONDS="${WAIT_SECONDS:-120}" OVERFLOW_SECONDS="${OVERFLOW_SECONDS:-60}"
export PARK_SECONDS="${PARK_SECONDS:-90}" WRAP_SECONDS="${WRAP_SECONDS:-2}" MENU_SECONDS="${MENU_SECONDS:-5}"
export MOH="${MOH:-/usr/share/asterisk/moh}"
export MEDIA="" NAT="" ICE=""
if [ -n "${PUBLIC_ADDRESS:-}" ]; then # phones and carrier reach this container under another address
	NAT="external_signaling_address=$PUBLIC_ADDRESS
external_media_address=$PUBLIC_ADDRESS"
	for own in $(hostname -I); do
		case $own in *:*) continue ;; esac
		NAT="$NAT
local_net=$own/32"
		ICE="${ICE:-[ice_host_candidates]}
$own => $PUBLIC_ADDRESS,include_local_address"
	done
fi

source=${CONFIG_SOURCE:-/usr/share/asterisk-config} target=${CONFIG_TARGET:-/etc/asterisk} run=${RUN_FOLDER:-/var/run/asterisk}
umask 027
rm -rf "${target:?}"/*
cp "$source/asterisk.conf" "$target/"
for file in "$source"/pbx/*.conf "$source"/include/*.conf; do
	case $file in *_lab.conf) continue ;; */include/*) out=$target/include/${file##*/} ;; *) out=$target/${file##*/} ;; esac
	mkdir -p "${out%/*}"
	perl -pe 's/\@([A-Z][A-Z0-9_]*)\@/exists $ENV{$1} ? $ENV{$1} : die "no value for $1 in $ARGV\n"/ge' "$file" >"$out"
done

mkdir -p "$run" # with the package the service makes it, and there is none here
chown -R asterisk:asterisk "$target" /var/lib/asterisk /var/spool/asterisk /var/log/asterisk "$run"
unset CTI_SECRET PHONE_SECRET
exec asterisk -f -U asterisk -G asterisk "$@"
