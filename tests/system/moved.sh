#!/usr/bin/env bash
# Data and checkpoints are known by their content: a restart finds them under other names, and refuses others under the same option.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
small=(--run.stages=sft,reward --ppo.prompts=none.h5)
train 1 base --run.stages=sft --sft.steps=2
must_end_with 0
start=(--sft.init=base/checkpoints/sft)
train 1 whole "${small[@]}" "${start[@]}"
must_end_with 0
train 1 moved "${small[@]}" "${start[@]}" --run.stop_after=3
must_end_with 75

# Every path is another one: a copy, or the same file in other words.
mkdir scratch
cp prepared/data/*.h5 scratch
cp -r base/checkpoints/sft scratch/init
there=(--sft.data=scratch/heldout-sft.h5 --sft.heldout=./prepared/data/heldout-sft.h5 --sft.init="$PWD/scratch/init"
  --reward.data="$PWD/scratch/heldout-preference.h5" --reward.heldout=scratch/heldout-preference.h5 --evaluate.prompts=scratch/heldout-prompts.h5)
cp -r moved before
for ranks in 1 2; do
  train "$ranks" moved "${small[@]}" "${start[@]}" --sft.data=prepared/data/sft.h5 --restart auto
  refused "sft.data = prepared/data/sft.h5 is not what the checkpoint 'moved/checkpoints/sft-3' was made with ('data = prepared/data/heldout-sft.h5')"
  train "$ranks" moved "${small[@]}" --sft.init=random --restart auto
  refused "sft.init = random is not what the checkpoint"
  train "$ranks" moved "${small[@]}" "${start[@]}" --reward.data=prepared/data/preference.h5 --restart auto --check
  refused "reward.data = prepared/data/preference.h5 is not what the checkpoint"
  train "$ranks" moved "${small[@]}" "${start[@]}" --sft.heldout= --restart auto
  refused "sft.heldout"
  train "$ranks" moved "${small[@]}" "${start[@]}" --sft.data=gone.h5 --restart auto
  refused "sft.data" "gone.h5"
done
diff -r before moved >&2 || wrong "a refused start has changed the run folder"
train 2 moved "${small[@]}" "${there[@]}" --restart auto --run.stop_after=5
must_end_with 75
# A finished stage needs its data no more, but not others.
train 1 moved "${small[@]}" "${there[@]:1}" --sft.data=prepared/data/sft.h5 --restart auto
refused "sft.data = prepared/data/sft.h5 is not what the checkpoint 'moved/checkpoints/sft' was made with"
rm scratch/heldout-sft.h5
train 1 moved "${small[@]}" "${there[@]}" --restart auto
must_end_with 0
same_run whole moved
train 1 moved "${small[@]}" "${start[@]}" --restart auto
must_end_with 0
must_print "reward finished earlier"
train 1 moved "${small[@]}" "${start[@]}" --sft.data=gone.h5 --restart auto
refused "sft.data" "gone.h5"
