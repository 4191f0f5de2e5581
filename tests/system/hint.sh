#!/usr/bin/env bash
# The command that a run prints at its end can be typed as it is, whatever its folder is called.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
for folder in "it's my run #1" plain; do
  train 1 "$folder" --run.stages=sft --sft.steps=1
  must_end_with 0
  typed=$(sed -n 's/^.*Try it: collimate //p' out.txt)
  code=0
  eval "'$COLLIMATE' $typed" >out.txt 2>err.txt </dev/null || code=$?
  must_end_with 0 "$typed"
  must_print "prompt: ..."
done
[[ $typed == "generate --checkpoint plain/checkpoints/sft "* ]] || wrong "quotes that nobody needs: $typed"
