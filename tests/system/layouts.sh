#!/usr/bin/env bash
# layouts.sh "RANKSxTHREADS..." OPTION...: the first layout gives the numbers, all others must give the same bytes.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
layouts=$1
shift
first=
for layout in $layouts; do
  export OMP_NUM_THREADS=${layout#*x}
  train "${layout%x*}" "$layout" "$@"
  must_end_with 0 "$layout"
  [ -n "$first" ] || first=$layout
  same_run "$first" "$layout"
done
