#!/usr/bin/env bash
# Proves that the tests of layouts can fail: sums in another order (numerics.mode = fast) give other bytes on three ranks, and only there
# where an order is left to choose.
source "$(dirname "${BASH_SOURCE[0]}")/../system/support.sh"
export OMP_NUM_THREADS=1
options=(--run.stages=sft --sft.steps=3 --sft.heldout= --batch.grain_tokens=128 --model.layers=4 --model.kv_heads=4 --numerics.tensor_shards=4)
train 1 exact "${options[@]}"
must_end_with 0
for grid in 1x3x1 4x1x1; do
  IFS=x read -r tensor data pipeline <<<"$grid"
  train $((tensor * data * pipeline)) fast --restart=replace --numerics.mode=fast --grid.tensor="$tensor" --grid.data="$data" "${options[@]}"
  must_end_with 0 "$grid"
  ! cmp -s exact/metrics.jsonl fast/metrics.jsonl || wrong "fast sums on $grid gave the bits of exact ones"
done
