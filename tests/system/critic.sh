#!/usr/bin/env bash
# Where PPO's critic starts: at the rewards' normalised score where the same model gives them, whatever the deck calls it; else at the
# normalised score that its own checkpoint has.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
train 2 start --run.stages=sft,reward
must_end_with 0
s=start/checkpoints
ppo() { # FOLDER OPTION...
  train 2 "$1" --run.stages=ppo --ppo.actor=$s/sft --ppo.reference=$s/sft --ppo.critic=$s/reward --ppo.iterations=1 --ppo.critic_rate=0 \
    --evaluate.prompts= "${@:2}"
  must_end_with 0
}
absolute=$PWD/$s/sft/../reward
for lora in 0 2; do
  ppo plain$lora --ppo.reward=$s/reward --lora.rank=$lora
  ppo slash$lora --ppo.reward=$s/reward/ --lora.rank=$lora
  ppo absolute$lora --ppo.reward="$absolute" --lora.rank=$lora
  for other in slash absolute; do
    same_run plain$lora $other$lora
    [ "$(grep 'total device' plain$lora/log.txt)" = "$(grep 'total device' $other$lora/log.txt)" ] || wrong "another memory plan"
  done
done
# By another scorer: the head is that of the reward model, times the gain in its checkpoint.
ppo length --ppo.scorer=length --ppo.normalise_samples=0
ppo unlike --ppo.reward=$s/reward --ppo.normalise_samples=0
[ "$(value length/summary.json ppo.critic_hash)" = "$(value unlike/summary.json ppo.critic_hash)" ] || wrong "not the stored normalisation"
[ "$(value length/summary.json ppo.critic_hash)" != "$(value start/summary.json reward.state_hash)" ] || wrong "the head is as the model had it"
