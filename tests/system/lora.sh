#!/usr/bin/env bash
# Runs with adapters: where they start, what their checkpoints hold, who reads them, and what is refused.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
lora=(--lora.rank=4 --lora.targets=query,value,down --lora.dropout=0.1)
# On random weights, and with the first stage learning whole.
train 1 random "${lora[@]}"
must_end_with 0
must_print "trained parameters"
grep -q "random numbers" random/log.txt || wrong "no warning of random frozen parameters"
train 2 run "${lora[@]}" --lora.stages=reward,ppo
must_end_with 0
! grep -q "random numbers" run/log.txt || wrong "a warning too many"
for folder in random run; do
  grep -q '"eval_kl":0,' $folder/metrics.jsonl || wrong "the KL to the reference does not start at exactly 0"
  ! grep -o '"first_ratio":[^,]*' $folder/metrics.jsonl | grep -vq ':1$' || wrong "a first ratio that is not 1"
done
# Where two runs differ in their adapters only, diff finds them, in the runs and in their checkpoints.
train 1 other "${lora[@]}" --lora.stages=reward,ppo --ppo.actor_rate=1.1e-3
must_end_with 0
run 1 diff run other
must_end_with 1
must_print "first difference: ppo iteration 1, "
must_print "of actor adapters"
must_print "policy/value/block.0.query.lora_b of shape "
run 1 diff run/checkpoints/reward other/checkpoints/reward
must_end_with 0
must_print "equal: "
! grep -q "equal: 0 tensors" out.txt || wrong "diff does not look at adapters"
# With B = 0 the first loss is that of the whole model.
train 1 plain --run.stages=sft --sft.steps=1
train 1 first --run.stages=sft --sft.steps=1 --lora.rank=4
loss() { grep -o '"loss":[^,]*' "$1/metrics.jsonl" | head -n 1; }
[ "$(loss plain)" = "$(loss first)" ] || wrong "fresh adapters change the first loss"
for pair in "first plain A B" "plain first B A"; do
  read -r a b lora_in full_in <<<"$pair"
  run 1 diff $a/checkpoints/sft $b/checkpoints/sft
  must_end_with 1
  must_print "the model policy of $lora_in is of a LoRA run and holds adapters alone (lora.rank = 4), that of $full_in holds all"
done
# Saved alone, found with their base, also where the run folder was moved and where the base was.
[ "$(du -s run/checkpoints/reward | cut -f 1)" -lt "$(du -s run/checkpoints/sft | cut -f 1)" ] || wrong "adapters take the place of a model"
talk=(generate --prompt "What is the capital of Peru?" --temperature 0 --max-new 8 --checkpoint)
run 1 "${talk[@]}" run/checkpoints/ppo
must_end_with 0
cp out.txt said.txt
mv run moved
run 1 "${talk[@]}" moved/checkpoints/ppo
must_end_with 0
cmp out.txt said.txt || wrong "a moved run says something else"
run 1 inspect moved/checkpoints/ppo
must_end_with 0
must_print '"rank": 4'
must_print '"base": "../sft"'
for folder in one two; do run 1 export --checkpoint moved/checkpoints/ppo --output $folder && must_end_with 0; done
must_print "adapters merged"
cmp one/model.safetensors two/model.safetensors
train 1 looked --run.stages=evaluate --evaluate.model=moved/checkpoints/ppo --evaluate.reference=moved/checkpoints/sft --ppo.reward=moved/checkpoints/reward
must_end_with 0
[ "$(value looked/summary.json evaluate.kl)" = "$(value moved/summary.json ppo.kl)" ] || wrong "evaluate.kl is not ppo.kl"
holds "$(value moved/summary.json ppo.kl) > 0" "KL of a policy that has learned"
train 1 narrowed --run.stages=evaluate --evaluate.model=moved/checkpoints/ppo --ppo.reward=moved/checkpoints/reward --numerics.values=bf16
refused "set numerics.values = f32"
mv moved/checkpoints/sft base
run 1 "${talk[@]}" moved/checkpoints/ppo
must_end_with 2
must_say "their base is not at 'moved/checkpoints/sft'"
run 1 "${talk[@]}" moved/checkpoints/ppo --base base
must_end_with 0
cmp out.txt said.txt || wrong "another place of the base says something else"
run 1 "${talk[@]}" moved/checkpoints/ppo --base plain/checkpoints/sft
must_end_with 2
must_say "belong to other weights"
# Beside parameters that were rounded to bf16: their base is rounded again, whatever it rests in.
train 1 narrow --numerics.values=bf16 --lora.stages=ppo "${lora[@]}"
must_end_with 0
run 1 "${talk[@]}" narrow/checkpoints/ppo
must_end_with 0
looked=(--run.stages=evaluate --ppo.reward=narrow/checkpoints/reward)
train 1 looked --restart=replace "${looked[@]}" --evaluate.model=narrow/checkpoints/ppo --evaluate.reference=narrow/checkpoints/sft --numerics.values=bf16
must_end_with 0
[ "$(value looked/summary.json evaluate.kl)" = "$(value narrow/summary.json ppo.kl)" ] || wrong "evaluate.kl is not ppo.kl"
# A later run starts from them by name or folder.
train 2 later --run.stages=reward --reward.init=random/checkpoints/sft --reward.steps=1 "${lora[@]}"
must_end_with 0
train 1 none --lora.rank=400
refused "lora.rank = 400"
train 1 none --lora.rank=2 --lora.targets=gate --model.family=gpt2 --model.kv_heads=0
refused "gate"
train 1 none --lora.rank=2 --lora.targets=queries
refused "queries"
