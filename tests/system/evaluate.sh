#!/usr/bin/env bash
# The stage evaluate says what PPO's own evaluations say, on any number of ranks, and the KL to the reference that it is given; scores are
# normalised as in PPO only where the same scorer gives them.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
mean() { sed -n "s/.*\"$1\":\([^,]*\),.*/\1/p" "$2" | awk '{ sum += $1 } END { printf "%.15g", sum / NR }'; }
train 2 trained
must_end_with 0
t=trained/summary.json
for ranks in 1 3; do
  look=(--run.stages=evaluate --restart replace --ppo.reward=trained/checkpoints/reward)
  train "$ranks" after "${look[@]}" --evaluate.model=trained/checkpoints/ppo --evaluate.reference=trained/checkpoints/sft
  must_end_with 0
  must_print "KL $(printf %.3f "$(value $t ppo.kl)")"
  must_print "Stage evaluate"
  for key in kl reward raw_reward preferred state_hash; do
    of_ppo=ppo.${key}_after
    case $key in kl) of_ppo=ppo.kl ;; state_hash) of_ppo=state_hash ;; esac
    [ "$(value after/summary.json evaluate.$key)" = "$(value $t $of_ppo)" ] || wrong "evaluate.$key is not $of_ppo"
  done
  holds "$(value $t ppo.kl) != 0" "KL of a policy that has learned"
  grep -q "\"eval_kl\":$(value $t ppo.kl)," after/metrics.jsonl || wrong "metrics.jsonl has no eval_kl"
  [ "$(value after/summary.json state_hash)" = "$(value $t state_hash)" ] || wrong "the state_hash is not the policy's"
  for key in kl reward raw_reward; do
    holds "($(mean $key after/samples.jsonl) - $(value after/summary.json evaluate.$key)) ^ 2 < 1e-18" "$key of samples.jsonl"
  done
  # From itself nothing is far; without a reference there is no KL.
  train "$ranks" same "${look[@]}" --evaluate.model=trained/checkpoints/ppo --evaluate.reference=trained/checkpoints/ppo
  must_end_with 0
  [ "$(value same/summary.json evaluate.kl)" = 0 ] || wrong "the KL to itself is $(value same/summary.json evaluate.kl)"
  train "$ranks" alone "${look[@]}" --evaluate.model=trained/checkpoints/sft
  must_end_with 0
  [ -z "$(value alone/summary.json evaluate.kl)" ] || wrong "a KL without a reference"
  [ "$(value alone/summary.json evaluate.raw_reward)" = "$(value $t ppo.raw_reward_before)" ] || wrong "another raw reward than before PPO"
done
# Another scorer has other units than the reward model that PPO learned from, and so has another reward model.
train 2 length --run.stages=evaluate --evaluate.model=trained/checkpoints/ppo --ppo.scorer=length --ppo.scorer_length=10
must_end_with 0
[ "$(value length/summary.json evaluate.reward)" = "$(value length/summary.json evaluate.raw_reward)" ] || wrong "the length's score is normalised"
train 2 other --run.stages=reward,evaluate --reward.init=trained/checkpoints/sft --reward.steps=2 --ppo.reward=reward --evaluate.model=trained/checkpoints/ppo
must_end_with 0
of_card() { grep -o "$1[\\\\\": ]*[-0-9.e]*" other/checkpoints/reward/manifest.json | head -n 1 | sed 's/.*[": ]//'; }
holds "($(of_card gain) * $(value other/summary.json evaluate.raw_reward) + $(of_card bias) - $(value other/summary.json evaluate.reward)) ^ 2 < 1e-12" \
  "another reward model's own normalisation"
# A word list is known by its content, not by its path.
printf 'the\t1\na\t2\nis\t-1\n' >words.txt
cp words.txt copy.txt
sed 's/2/3/' words.txt >altered.txt
liked=(--ppo.scorer=lexicon --evaluate.reference=)
train 2 liked --run.stages=ppo --ppo.actor=trained/checkpoints/sft --ppo.reference=trained/checkpoints/sft --ppo.critic=trained/checkpoints/sft \
  "${liked[@]}" --ppo.scorer_lexicon=words.txt --ppo.normalise_samples=32
must_end_with 0
for words in copy altered; do
  train 1 $words --run.stages=evaluate --evaluate.model=liked/checkpoints/ppo "${liked[@]}" --ppo.scorer_lexicon=$words.txt
  must_end_with 0
done
[ "$(value copy/summary.json evaluate.reward)" = "$(value liked/summary.json ppo.reward_after)" ] || wrong "the same words elsewhere"
[ "$(value altered/summary.json evaluate.reward)" = "$(value altered/summary.json evaluate.raw_reward)" ] || wrong "other words are normalised"
# As the last stage of a run, and what cannot be compared.
train 2 whole --run.stages=sft,reward,ppo,evaluate --evaluate.reference=sft --ppo.iterations=1
must_end_with 0
[ "$(value whole/summary.json evaluate.kl)" = "$(value whole/summary.json ppo.kl)" ] || wrong "evaluate.kl is not ppo.kl"
train 2 none --run.stages=evaluate,sft --evaluate.model=trained/checkpoints/sft --ppo.reward=trained/checkpoints/reward --evaluate.reference=sft
refused "evaluate.reference = sft" "sft must come before"
train 2 none "${look[@]:0:1}" --ppo.reward=trained/checkpoints/reward --evaluate.model=trained/checkpoints/ppo --evaluate.reference=trained/checkpoints/reward
refused "evaluate.reference" "a language model"
train 2 none "${look[@]:0:1}" --ppo.reward=trained/checkpoints/ppo --evaluate.model=trained/checkpoints/ppo
refused "ppo.reward = trained/checkpoints/ppo" "its critic is not a reward model"
[ ! -e none ] || wrong "a refused run has written"
