#!/usr/bin/env bash
# quickstart.sh SEED: the shipped deck, whole, keeps what the README promises.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
limit=${LIMIT:-1500}
export OMP_NUM_THREADS=1
run 2 run "$here/../../inputs/quickstart/quickstart.ini" --run.folder=run --run.seed="$1"
must_end_with 0
s=run/summary.json
for key in sft.eval_loss reward.accuracy ppo.preferred_before ppo.preferred_after ppo.reward_before ppo.reward_after ppo.kl state_hash \
  peak_memory_bytes prepare.peak_memory_bytes sft.peak_memory_bytes reward.peak_memory_bytes ppo.peak_memory_bytes sft.seconds reward.seconds ppo.seconds; do
  number=$(value "$s" "$key")
  [ -n "$number" ] || wrong "summary.json has no $key"
  echo "seed $1: $key $number"
done
holds "$(value $s ppo.preferred_before) >= 0.40 && $(value $s ppo.preferred_before) <= 0.60" "preferred before PPO"
holds "$(value $s ppo.preferred_after) >= 0.90" "preferred after PPO"
holds "$(value $s reward.accuracy) >= 0.95" "pair accuracy of the reward model"
holds "$(value $s ppo.kl) < 5" "KL to the reference"
must_print "share of preferred answers"
must_print "before:"
[ "$(grep -c '"first_ratio":1,' run/metrics.jsonl)" = "$(grep -c '"first_ratio"' run/metrics.jsonl)" ] || wrong "a first ratio is not 1"
