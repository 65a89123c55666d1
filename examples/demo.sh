#!/usr/bin/env bash
# Asks the embedded reader about the contract beside this script, and checks what it says against the file.
set -euo pipefail
glyph_rt=$1
cd "$(dirname "$0")/.."

ask() { # question, the answer that stands in the contract
  echo
  echo "\$ glyph-rt ask examples/contract.txt \"$1\""
  local answer
  answer=$("$glyph_rt" ask examples/contract.txt "$1" --stats)
  echo "$answer"
  [ "$answer" = "$2" ] || { echo "demo: expected \"$2\"" >&2; exit 1; }
}

ask "What is the value of Pump type?" "KV-330"
ask "What is the value of Monthly fee?" "EUR 2,450"
ask "What is the value of Notice period?" "90 days"
echo
echo "Right, all three. Now ask about a file of yours: $glyph_rt ask FILE \"What is the value of KEY?\""
