#!/usr/bin/env bash
# Runs every fuzz target of the house for a while: deploy/fuzz.sh TAGS TIME.
set -euo pipefail

grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do
  sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$file" | while read -r target; do
    echo "== ${file%/*} $target"
    go test -tags "$1" -run '^$' -fuzz "^$target\$" -fuzztime "$2" -fuzzminimizetime 10x "${file%/*}" </dev/null
  done
done
