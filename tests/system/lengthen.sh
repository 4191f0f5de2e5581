#!/usr/bin/env bash
# A stage that is given more steps at a restart goes on to them, on another number of ranks, to the bytes of a run that had them from the start.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
export OMP_NUM_THREADS=1
constant=(--sft.schedule=constant --reward.schedule=constant --ppo.actor_schedule=constant --ppo.critic_schedule=constant --ppo.freeze_actor=1)
train 1 whole "${constant[@]}"  # 6 steps of SFT, 5 of the reward model, 4 iterations
must_end_with 0

# Each stage in two parts: finished, then lengthened.
train 2 longer "${constant[@]}" --run.stages=sft --sft.steps=4
must_end_with 0
cp -r longer four
train 3 longer "${constant[@]}" --run.stages=sft --restart auto
must_end_with 0
must_print "resuming after step 4"
train 1 longer "${constant[@]}" --run.stages=sft,reward --reward.steps=3 --restart auto
must_end_with 0
train 2 longer "${constant[@]}" --run.stages=sft,reward --restart auto --run.stop_after=1  # and is stopped on the way
must_end_with 75
train 1 longer "${constant[@]}" --run.stages=sft,reward --restart auto
must_end_with 0
train 1 longer "${constant[@]}" --ppo.iterations=2 --restart auto
must_end_with 0
train 2 longer "${constant[@]}" --restart auto
must_end_with 0
must_print "resuming after iteration 2"
same_run whole longer
[ "$(ls longer/checkpoints | tr '\n' ' ')" = "ppo reward sft " ] || wrong "checkpoints left: $(ls longer/checkpoints)"

# Epochs count as steps do; an interrupted stage can be lengthened and shortened.
train 1 sft "${constant[@]}" --run.stages=sft
must_end_with 0
train 2 cut "${constant[@]}" --run.stages=sft --sft.steps=5 --run.stop_after=2
must_end_with 75
train 1 cut "${constant[@]}" --run.stages=sft --sft.steps=0 --sft.epochs=1.25 --restart auto  # 450 samples in batches of 80
must_end_with 0
same_run sft cut
train 1 short "${constant[@]}" --run.stages=sft --run.stop_after=4
must_end_with 75
train 2 short "${constant[@]}" --run.stages=sft --sft.steps=4 --restart auto
must_end_with 0
same_run four short

# Refused, with the reason, and before anything is changed.
train 1 linear --run.stages=sft --sft.steps=4
must_end_with 0
for folder in linear whole; do cp -r $folder $folder.before; done
for check in --check --run.seed=5; do
  train 2 linear --run.stages=sft --sft.steps=6 --restart auto $check
  refused "sft.steps = 6: the 4 steps" "depend on that number (sft.schedule)" "take a new run.folder"
  train 2 whole "${constant[@]}" --sft.steps=8 --restart auto $check
  refused "sft.steps = 8 is more than the 6 steps" "the stage reward has begun" "new run.folder"
  train 1 whole "${constant[@]}" --ppo.iterations=3 --restart auto $check
  refused "ppo.iterations = 3 is less than the 4 iterations"
  train 1 whole "${constant[@]}" --ppo.iterations=5 --ppo.actor_rate=1e-4 --restart auto $check
  refused "another deck" "[ppo] 'actor_rate = 0.001' then, 'actor_rate = 0.0001' now"
done
for folder in linear whole; do diff -r $folder.before $folder >&2 || wrong "a refused start has changed the run folder"; done
# Within the warm-up the rate does not depend on the number of steps.
train 1 warm --run.stages=sft --sft.warmup=4 --sft.steps=5 --run.stop_after=3
must_end_with 75
train 2 warm --run.stages=sft --sft.warmup=4 --sft.steps=6 --restart auto
must_end_with 0
train 1 cold --run.stages=sft --sft.warmup=4 --sft.steps=6
must_end_with 0
same_run cold warm
# The first step behind it has the peak rate still, and the second one a rate that does.
train 1 behind --run.stages=sft --sft.warmup=2 --sft.steps=5 --run.stop_after=4
must_end_with 75
train 2 behind --run.stages=sft --sft.warmup=2 --sft.steps=6 --restart auto
refused "sft.steps = 6: the 4 steps" "depend on that number (sft.schedule)"
