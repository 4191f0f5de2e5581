#!/usr/bin/env bash
# How many steps there are, and at which of them a stage evaluates and saves.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"

# An epoch covers all samples, and the last step goes on into the next pass: 360 samples in batches of 150 are 3 steps, 2 x 480 groups in
# batches of 300 are 4; half an epoch in batches of 80 is 3 steps.
train 1 epochs --check --run.stages=sft,reward --sft.batch=150 --sft.steps=0 --sft.epochs=1 --reward.batch=300 --reward.steps=0 --reward.epochs=2
must_end_with 0
must_print "3 steps of 150 samples (1.25 epochs), "
must_print "4 steps of 300 groups (2.5 epochs), "
train 1 half --check --run.stages=sft --sft.batch=80 --sft.steps=0 --sft.epochs=0.5
must_print "3 steps of 80 samples (0.667 epochs), 120 samples are never used"
train 1 exact --check --run.stages=sft --sft.batch=36 --sft.steps=0 --sft.epochs=1.1
must_print "11 steps of 36 samples (1.1 epochs), "
train 1 asked --check --run.stages=ppo --ppo.actor=random --ppo.reference=random --ppo.critic=random --ppo.scorer=length --ppo.iterations=2 --ppo.batch=50
must_print "2 iterations of 50 samples (80 of the prompts are never used)"
# What is left out without epochs is said too; all samples of an epoch are learned: 360 samples once, and 90 of them twice.
train 1 whole --run.stages=sft --sft.batch=150 --sft.steps=0 --sft.epochs=1
must_end_with 0
[ "$(sed -n 's/.*"stage":"sft","step":3,.*"samples":\([0-9]*\).*/\1/p' whole/metrics.jsonl)" = 450 ] || wrong "samples of 3 steps"
