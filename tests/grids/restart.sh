#!/usr/bin/env bash
# A run that is stopped and goes on, each time on another grid and with another ZeRO stage, writes the bytes of one that is not.
source "$(dirname "${BASH_SOURCE[0]}")/../system/support.sh"
export OMP_NUM_THREADS=1
options=(--sft.steps=4 --reward.steps=4 --ppo.iterations=3 --ppo.freeze_actor=1 --model.layers=3 "$@")
train 1 whole "${options[@]}"
must_end_with 0
first=1
for layout in 2x1x1:0 1x2x2:1 4x1x1:0 1x3x1:3 2x2x1:2 1x1x3:0; do
  IFS=x: read -r tensor data pipeline zero <<<"$layout"
  train $((tensor * data * pipeline)) stopped --restart auto --run.stop_after=2 --grid.tensor="$tensor" --grid.data="$data" \
    --grid.pipeline="$pipeline" --params.zero="$zero" "${options[@]}"
  [ "$code" = 0 ] || must_end_with 75 "stop on $layout"
  [ -z "$first" ] || must_say "continue with --restart auto"
  first=
done
train 1 stopped --restart auto "${options[@]}"
must_end_with 0
same_run whole stopped
