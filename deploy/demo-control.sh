#!/usr/bin/env bash
# Plays a short class on a sound terminal, which must pass, and on two spoilt
# ones, which must not: a demonstration that cannot fail shows nothing.
set -euo pipefail

play() { # how the terminal is spoilt, the status that is expected
  echo "== control: $1"
  local status=0
  ROLLCALL_SABOTAGE=$1 bin/rollcall-sim demo -scenario control -dir build/control -daemon bin/control/rollcalld || status=$?
  if [ "$status" -ne "$2" ]; then
    echo "demo-control: $1 ended with status $status, $2 was expected" >&2
    exit 1
  fi
}
play none 0
play accept-all 1
play screen-first 1
echo "the demonstration passes the sound terminal and fails both spoilt ones"
