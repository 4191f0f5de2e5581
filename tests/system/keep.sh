#!/usr/bin/env bash
# Which checkpoints a stage writes, at which steps, which of them stay, and that others can start from them.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
export OMP_NUM_THREADS=1
kept() { ls "$1/checkpoints" | tr '\n' ' '; }
steps_of() { sed -n "s/.*\"stage\":\"$2\",\"$3\":\([0-9]*\),\"$4\".*/\1/p" "$1/metrics.jsonl" | tr '\n' ' '; }

# Evaluations of 6 steps come after the second, the fourth and the sixth; a checkpoint after the third.
train 1 steps --run.stages=sft --sft.evaluate_every=2 --sft.checkpoint_every=3 --run.keep_last=9
must_end_with 0
[ "$(steps_of steps sft step eval_loss)" = "2 4 6 " ] || wrong "evaluations at $(steps_of steps sft step eval_loss)"
[ "$(kept steps)" = "sft sft-3 " ] || wrong "checkpoints: $(kept steps)"
train 1 usual --run.stages=sft --sft.checkpoint_every=1
[ "$(kept usual)" = "sft " ] || wrong "checkpoints: $(kept usual)"
train 1 running --run.stages=sft --sft.checkpoint_every=1 --run.stop_after=4
[ "$(kept running)" = "sft-3 sft-4 " ] || wrong "checkpoints: $(kept running)"
train 2 last --run.stages=sft --sft.checkpoint_every=1 --run.keep_last=3
[ "$(kept last)" = "sft sft-4 sft-5 " ] || wrong "checkpoints: $(kept last)"
train 2 every --run.stages=sft,reward --run.keep_every=2
[ "$(kept every)" = "reward reward-2 reward-4 sft sft-2 sft-4 " ] || wrong "checkpoints: $(kept every)"

# The best: what the metrics say, in an uninterrupted run and in one that is stopped after every step.
best=(--run.stages=sft,reward --run.keep_best=true --sft.evaluate_every=1 --sft.rate=0.2 --sft.steps=5 --sft.clip=0 --reward.evaluate_every=2 --reward.rate=0.05)
train 1 best "${best[@]}"
must_end_with 0
least=$(sed -n 's/.*"stage":"sft","step":\([0-9]*\),"eval_loss":\([^,]*\),.*/\2 \1/p' best/metrics.jsonl | sort -g | head -n 1)
most=$(sed -n 's/.*"stage":"reward","step":\([0-9]*\),"eval_accuracy":\([^,]*\),.*/\2 \1/p' best/metrics.jsonl | sort -k1,1gr -k2,2n | head -n 1)
step=${least#* }
[ "$step" != 5 ] || wrong "the last step is the best, so that this shows nothing"
[ "$(value best/summary.json sft.best_step)" = "$step" ] || wrong "sft.best_step is $(value best/summary.json sft.best_step), not $step"
[ "$(value best/summary.json sft.best_eval_loss)" = "${least% *}" ] || wrong "sft.best_eval_loss"
[ "$(value best/summary.json sft.best_checkpoint)" = "checkpoints/sft-$step" ] || wrong "sft.best_checkpoint"
[ "$(value best/summary.json reward.best_step)" = "${most#* }" ] || wrong "reward.best_step is not ${most#* }"
must_print "best held-out loss: $(printf %.4f "${least% *}") after step $step, in best/checkpoints/sft-$step"
case " $(kept best)" in *" sft-$step "*) ;; *) wrong "checkpoints: $(kept best)" ;; esac
[ "$(kept best | tr ' ' '\n' | grep -c sft)" = 2 ] || wrong "checkpoints: $(kept best)"
ranks=1
code=75
while [ "$code" = 75 ]; do
  ranks=$((ranks % 3 + 1))
  train "$ranks" stopped "${best[@]}" --restart auto --run.stop_after=1
done
must_end_with 0
same_run best stopped
[ "$(kept best)" = "$(kept stopped)" ] || wrong "checkpoints: $(kept best), of the stopped run $(kept stopped)"
train 1 idle --check --run.stages=sft --run.keep_best=true
must_print "run.keep_best: nothing is measured before the end of sft"

# Any of them can be a start, and is what a shorter run with a constant rate leaves at its end; also one of an unfinished stage.
constant=(--sft.schedule=constant --reward.schedule=constant)
train 1 short "${constant[@]}" --run.stages=sft,reward --sft.steps=2 --reward.steps=2 --sft.heldout=
train 1 long "${constant[@]}" --run.stages=sft,reward --sft.steps=2 --run.keep_every=2 --sft.heldout= --run.stop_after=5
must_end_with 75
for folder in short/checkpoints/reward long/checkpoints/reward-2; do
  "$COLLIMATE" inspect $folder | grep -e '"gain"' -e '"bias":' >"said.$(dirname "$(dirname $folder)")"
done
cmp said.short said.long || wrong "the scores of reward-2 are not normalised as those of a run of two steps"
train 2 from "${constant[@]}" --sft.init=last/checkpoints/sft-4 --reward.init=every/checkpoints/sft-2 --ppo.reward=long/checkpoints/reward-2 \
  --ppo.critic=long/checkpoints/reward-2 --ppo.iterations=1 --ppo.normalise_samples=0
must_end_with 0
train 1 tried --run.stages=evaluate --evaluate.model=every/checkpoints/sft-2 --ppo.scorer=length
must_end_with 0
train 1 raw --run.stages=ppo --ppo.actor=every/checkpoints/sft-2 --ppo.reference=every/checkpoints/sft-2 --ppo.critic=long/checkpoints/reward-2 \
  --ppo.reward=long/checkpoints/reward-3 --ppo.normalise_samples=0
refused "ppo.reward" "'long/checkpoints/reward-3'" "not normalised" "ppo.normalise_samples" "run.keep_best"

# PPO: its iterations, by the held-out reward.
ppo=(--run.stages=ppo --ppo.actor=every/checkpoints/sft --ppo.reference=every/checkpoints/sft --ppo.critic=every/checkpoints/reward
  --ppo.reward=every/checkpoints/reward --ppo.evaluate_every=1 --ppo.checkpoint_every=0 --run.keep_best=true)
train 2 ppo "${ppo[@]}"
must_end_with 0
most=$(sed -n 's/.*"stage":"ppo","iteration":\([1-9]\),"eval_reward":\([^,]*\),.*/\2 \1/p' ppo/metrics.jsonl | sort -k1,1gr -k2,2n | head -n 1)
[ "$(value ppo/summary.json ppo.best_step)" = "${most#* }" ] || wrong "ppo.best_step is not ${most#* }"
