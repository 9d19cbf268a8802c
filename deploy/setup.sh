#!/usr/bin/env bash
# Installs the Debian packages that Rollcall is built and run with ("run"), and
# those that its tests need besides ("test"). Installs nothing, and needs no
# network, when all are there.
set -euo pipefail

packages=(
  g++ pkg-config              # cgo: OpenCV's shim and PC/SC
  libopencv-dev               # camera and nets
  libpcsclite-dev             # card readers
  pcscd vsmartcard-vpcd       # the simulator's virtual readers
)
case "${1:-}" in
run) ;;
test) packages+=(
  openssl                     # computes what a virtual PSAM computes
  python3 python3-cryptography # the second verifier, docs/verify.py
  iproute2 nftables           # lost packets, dead links, in a network of their own
  e2fsprogs mount             # a real file system, whose power is cut
  mosquitto                   # the uplink through somebody else's broker
  postgresql                  # the centre's other database; tests start servers of their own
  chromium fonts-wqy-microhei # the panel in a real browser, with Chinese
) ;;
*) echo "usage: deploy/setup.sh run|test" >&2; exit 2 ;;
esac
command -v npm >/dev/null || packages+=(npm) # brings the nets

command -v go >/dev/null || { echo "go is missing: install Go 1.26 from your distribution or the Go project" >&2; exit 1; }
command -v dpkg-query >/dev/null || { echo "this is not Debian: install the like of ${packages[*]} yourself" >&2; exit 1; }

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "missing: ${missing[*]}: as root, run apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "installing ${missing[*]}"
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
# A machine that never listed its packages, or long ago, lists them once.
install 2>/dev/null || { "${as_root[@]}" apt-get update -qq && install; } || {
  echo "could not install ${missing[*]}: check the network, then run apt-get install ${missing[*]}" >&2
  exit 1
}
