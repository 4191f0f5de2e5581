#!/usr/bin/env bash
# Models that leave the program and come back: a Qwen2 with scaled rotations through all stages, its reward model as a sequence classifier, its
# adapters as PEFT stores them.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
qwen2=(--model.family=qwen2 --model.rope_scaling=llama3 --model.rope_factor=4 --model.rope_original_context=32)
train 2 run "${qwen2[@]}"
must_end_with 0
! grep -o '"first_ratio":[^,]*' run/metrics.jsonl | grep -vq ':1$' || wrong "a first ratio that is not 1"

# The reward model out and in. PPO with what came back: raw scores differ by the constant that was left out, normalised ones hardly.
run 1 export --checkpoint run/checkpoints/reward --output reward
must_end_with 0
must_print "model 'reward'"
must_print "is left out, which transformers' head has no place for"
grep -q Qwen2ForSequenceClassification reward/config.json || wrong "config.json names another class"
run 1 import --model reward --output reward-again
must_end_with 0
must_print "model 'reward' (qwen2, f32)"
for reward in reward reward-again; do
  train 2 ppo-$reward "${qwen2[@]}" --run.stages=ppo --ppo.actor=run/checkpoints/sft --ppo.critic=run/checkpoints/reward \
    --ppo.reference=run/checkpoints/sft --ppo.reward=$([ $reward = reward ] && echo run/checkpoints/reward || echo reward-again) --ppo.iterations=1
  must_end_with 0
  grep -o '"reward":[^,]*' ppo-$reward/samples.jsonl | head -n 1 | cut -d : -f 2 >$reward.first
done
holds "($(cat reward.first) - $(cat reward-again.first))^2 < 1e-6" "the first sample's reward of both"

# A stage starts from it, and so does the language model that was exported and imported in bf16.
train 1 more "${qwen2[@]}" --run.stages=reward --reward.init=reward-again --reward.steps=2
must_end_with 0
run 1 export --checkpoint run/checkpoints/ppo --output policy --dtype bf16
must_end_with 0
run 1 import --model policy --output policy-again
must_print "model 'policy' (qwen2, bf16)"
train 1 tuned "${qwen2[@]}" --run.stages=sft --sft.init=policy-again --sft.steps=2
must_end_with 0
run 1 export --checkpoint tuned/checkpoints/sft --output tuned-hf --shard-size 30KB
must_end_with 0
must_print " parameters in bf16"
[ -s tuned-hf/model.safetensors.index.json ] || wrong "the export is not cut into files"

# Adapters out and in: merged, both are the same model.
train 1 lora "${qwen2[@]}" --run.stages=sft --sft.init=policy-again --sft.steps=3 --lora.rank=3 --lora.targets=query,key,output,gate
must_end_with 0
run 1 export --checkpoint lora/checkpoints/sft --output peft --adapters
must_end_with 0
run 1 import --model peft --base policy-again --output peft-again
must_end_with 0
must_print "adapters of rank 3 for the query, key, output, gate of model 'policy'"
for checkpoint in lora/checkpoints/sft peft-again; do
  run 1 generate --checkpoint $checkpoint --prompt-ids 40,80,120,160 --temperature 0 --max-new 8 --stop none --logprobs
  must_end_with 0
  mv out.txt said-$(basename $checkpoint).txt
done
cmp said-sft.txt said-peft-again.txt || wrong "adapters say something else after PEFT"
run 1 import --model peft --output x
must_end_with 2
must_say "peft' holds adapters of PEFT: import their base first, and name that checkpoint with --base"
