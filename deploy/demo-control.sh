#!/usr/bin/env bash
# Plays a short class on a sound terminal, which must pass, and on two spoilt
# ones, which must not: a demonstration that cannot fail shows nothing.
set -euo pipefail

play() { # how the terminal is spoilt, the status that is expected, what the demonstration must say
  echo "== control: $1"
  local status=0 said
  said=$(ROLLCALL_SABOTAGE=$1 bin/rollcall-sim demo -scenario control -dir build/control -daemon bin/control/rollcalld 2>&1) || status=$?
  echo "$said"
  if [ "$status" -ne "$2" ] || ! grep -qF "$3" <<<"$said"; then
    echo "demo-control: $1 ended with status $status, and $2 was expected, with the words \"$3\"" >&2
    exit 1
  fi
}
play none 0 "all equal the truth"
play accept-all 1 "(lent the card: another person's face): the screen said \"recorded\""
play screen-first 1 "(taps a second time after the restart): the screen said \"recorded\""
echo "the demonstration passes the sound terminal and fails both spoilt ones, each for its own fault"
