#!/usr/bin/env bash
# What is no part of the numbers' definition changes no byte: slots, logs, checkpoints, threads' number, ranks with nothing to do.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
train 1 plain
must_end_with 0
train 2 other --ppo.slots=3 --sft.log_every=5 --sft.checkpoint_every=1 --ppo.checkpoint_every=3 --run.stop_after=1000 --grid.data=2
must_end_with 0
same_run plain other

# One grain for each batch: three of four ranks are idle, and told so.
train 1 one --batch.grain_tokens=2000
must_end_with 0
! grep -q "have no work" out.txt err.txt || wrong "a rank is said to be idle, and there is only one"
for check in --check ""; do
  train 4 four --batch.grain_tokens=2000 $check
  must_end_with 0
  for stage in sft reward ppo; do
    [ "$(cat out.txt err.txt | grep -c "3 of 4 ranks have no work in $stage")" = 1 ] || wrong "no warning of idle ranks in $stage ($check)"
  done
done
same_run one four
# These grains are another definition of the numbers.
! cmp -s plain/metrics.jsonl one/metrics.jsonl || wrong "grains of another size gave the same bytes: the comparison sees nothing"
