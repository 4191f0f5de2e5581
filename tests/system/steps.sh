#!/usr/bin/env bash
# How many steps there are, and at which of them a stage evaluates and saves.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"

# An epoch covers all samples: 360 in batches of 100 are 4 steps; the last one goes on into the next pass. 0.5 epochs: 2 steps.
train 1 epochs --check --run.stages=sft,reward --sft.batch=100 --sft.steps=0 --sft.epochs=1 --reward.batch=100 --reward.steps=0 --reward.epochs=2
must_end_with 0
must_print "4 steps of 100 samples (1.11 passes), "
must_print "10 steps of 100 groups (2.08 passes), "
train 1 half --check --run.stages=sft --sft.batch=100 --sft.steps=0 --sft.epochs=0.5
must_print "2 steps of 100 samples (0.556 passes), 160 samples are not learned"
train 1 asked --check --run.stages=ppo --ppo.actor=random --ppo.reference=random --ppo.critic=random --ppo.scorer=length --ppo.iterations=2 --ppo.batch=50
must_print "2 iterations of 50 samples (80 of the prompts are not asked)"
