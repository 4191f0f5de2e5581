#!/usr/bin/env bash
# --check looks at everything, prints the memory and leaves nothing behind.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
for ranks in 1 2; do
  train "$ranks" none/yet --check
  must_end_with 0
  for text in "sft: 360 samples" "reward: 480 prompt groups" "ppo: 180 prompts" "total device"; do must_print "$text"; done
  [ ! -e none ] || wrong "--check has written"
  # The quickstart as it is shipped: its data do not exist yet.
  run "$ranks" run "$here/../../inputs/quickstart/quickstart.ini" --run.folder=none/yet --restart none --check
  must_end_with 0
  must_print "sft: 6000 samples"
  must_print "ppo: 180 prompts"
  [ "$(ls -A | tr '\n' ' ')" = "err.txt out.txt prepared " ] || wrong "--check has left $(ls -A)"
done
train 1 none --check --memory.device=1000000
refusal=3 refused "memory.device"
[ ! -e none ] || wrong "--check has written"

# A model that comes from a checkpoint is what it is; the deck's own is said to be without use, in --check and in the run.
train 1 first --run.stages=sft --sft.steps=1 --ppo.critic=sft --ppo.scorer=length
must_end_with 0
! grep -q "no effect" out.txt err.txt || wrong "the model is used"
for check in --check --reward.steps=1; do
  train 2 next --run.stages=reward --reward.init=first/checkpoints/sft $check
  must_end_with 0
  cat out.txt err.txt | grep -q "every model comes from a checkpoint, so these options have no effect: model.layers, model.width, " || wrong "no warning of a model without use ($check)"
done
train 1 first --run.stages=ppo --sft.steps=1 --restart auto --check --ppo.critic=sft --ppo.scorer=length
must_end_with 0
! grep -q "no effect" out.txt err.txt || wrong "the SFT model that PPO names started from random numbers"

# What the plan says is what is allocated.
train 2 done --run.stages=sft --sft.steps=1
must_end_with 0
grep -q "allocated  *[0-9.]* MiB, as planned" done/log.txt || wrong "the log does not say what was allocated"

# Each stage has its peak, the run has the largest, and a restart keeps what it does not do again.
train 2 peaks --run.stages=sft,reward --sft.steps=1 --reward.steps=3 --run.stop_after=2
must_end_with 75
train 1 peaks --run.stages=sft,reward --sft.steps=1 --reward.steps=3 --restart auto
must_end_with 0
p=peaks/summary.json
for stage in sft reward; do
  holds "$(value $p $stage.peak_memory_bytes) > 1000000 && $(value $p $stage.peak_memory_bytes) <= $(value $p peak_memory_bytes)" "the peak of $stage"
done

# PPO without an iteration has a before and no after.
train 1 still --sft.steps=1 --reward.steps=1 --ppo.iterations=0
must_end_with 0
must_print "before PPO"
must_print "before: "
must_print "the actor stays as it is"
! grep -q "after" out.txt || wrong "an after without PPO: $(grep after out.txt)"

# Data that are fewer than a batch, and held-out data that are none.
train 1 idle --check --run.stages=sft,reward --sft.batch=361 --reward.batch=480
must_end_with 0
cat out.txt err.txt >said.txt
[ "$(grep -c warning: said.txt)" = 3 ] || wrong "$(grep -c warning: said.txt) warnings, not 3"
grep -qF "sft.batch = 361 is more than the 360 samples of 'prepared/data/heldout-sft.h5', so" said.txt || wrong "no warning of a large batch"
grep -qF "reward.heldout is reward.data: held-out figures are measured on the training data" said.txt || wrong "no warning of held-out data that were learned"

# Adapters' options where no adapter learns.
train 1 idle --check --lora.alpha=3
must_end_with 0
cat out.txt err.txt | grep -q "lora.rank is 0 (no adapters), so these options have no effect: lora.alpha" || wrong "no warning of lora.alpha without use"
# Options of another scorer than the chosen one, and a warm-up that is longer than its stage: said once, by --check and by the run.
idle=(--sft.heldout= --reward.heldout= --ppo.scorer=length --ppo.scorer_length=10 --ppo.scorer_lexicon=words.txt --ppo.scorer_sign=-1 --ppo.reward=other)
for check in --check --sft.steps=6; do
  rm -rf idle
  train 1 idle "${idle[@]}" --sft.warmup=7 --reward.warmup=5 --ppo.actor_warmup=25 --ppo.critic_warmup=24 $check
  must_end_with 0
  cat out.txt err.txt >said.txt
  [ "$(grep -c warning: said.txt)" = 3 ] || wrong "$(grep -c warning: said.txt) warnings, not 3 ($check)"
  for text in "with ppo.scorer = length these options have no effect: ppo.reward, ppo.scorer_lexicon; remove"     "sft.warmup = 7 is longer than the 6 optimizer steps of the stage" "ppo.actor_warmup = 25 is longer than the 24 optimizer steps"; do
    grep -qF "$text" said.txt || wrong "no warning says '$text' ($check)"
  done
done
[ "$(grep -c warning: idle/log.txt)" = 3 ] || wrong "the log lacks a warning"
# Nothing is wrong with the deck that a run has written.
run 1 run idle/deck.ini --check --run.folder=again --sft.warmup=0 --ppo.actor_warmup=0 --ppo.reward=reward --ppo.scorer_lexicon=
must_end_with 0
! grep -q warning: out.txt err.txt || wrong "a run's own deck is warned of: $(grep warning: out.txt err.txt)"
train 1 idle --check --lora.rank=2 --lora.stages=
refused "lora.rank = 2 and lora.stages is empty"
