#!/usr/bin/env bash
# Wrong decks, datasets and checkpoints: on 1 and 2 ranks one sentence, exit code 2, and no run folder.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
limit=60

# bad OPTION... -- TEXT...: the small deck with these options is refused with all of the texts.
bad() {
  local options=() ranks
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  for ranks in ${counts:-2}; do
    train "$ranks" bad "${options[@]}"
    refused "$@"
    [ ! -e bad ] || wrong "a run folder is left: ${options[*]}"
  done
}

# The deck.
counts="1 2"
bad --sft.rat=1 -- sft.rat sft.rate
bad --sft.rate=-1 -- sft.rate "number >= 0"
bad --sft.rate=fast -- sft.rate fast
bad --ppo.clip_low=1.5 -- ppo.clip_low "0..1"
run 1 run "$here/small.ini" '--run.folder=~/bad'
refused "run.folder = ~/bad" "write it out"
bad --run.stages=sft,pretrain -- run.stages pretrain
bad --evaluate.temperature=1e-30 -- evaluate.temperature "0 or number 1e-06"
counts=2
bad --ppo.max_new=9223372036854775807 -- ppo.max_new "1..2147483647"
bad --sft.beta1=1 -- sft.beta1 ">= 0 and < 1"
bad --ppo.kl=1e300 -- ppo.kl "0..1000000"
bad --ppo.normalise_samples=1 -- ppo.normalise_samples "0 or integer 2.."
bad --evaluate.samples=10000000 -- evaluate.samples "60 prompts" "lower it"
bad --run.stages=sft,sft -- run.stages twice
bad --model.family=bert -- model.family llama
bad --model.heads=5 -- model.width model.heads
bad --grid.tensor=2 -- grid.tensor numerics.tensor_shards
bad --grid.pipeline=3 -- grid
bad --sft.batch=1000000000000 -- sft.batch "1..16777216"
bad --grid.data=7 -- "1 x 7 x 1" "needs 7 ranks, but the job has 2"
bad --numerics.tensor_shards=3 -- numerics.tensor_shards "power of two"
printf '[sft]\nrate = 1\n[sfd]\nrate = 1\n' >wrong.ini
printf '# fine\n[run]\nfolder = runs/a  # mine\n' >commented.ini
for ranks in 1 2; do
  run "$ranks" run wrong.ini
  refused "wrong.ini" "sfd.rate" "4"
  run "$ranks" run commented.ini
  refused "commented.ini:3: a comment stands on a line of its own" "'runs/a  # mine'"
  run "$ranks" run no-such.ini
  refused "no-such.ini"
  run "$ranks" run prepared
  refused "the deck 'prepared' is a folder"
  run "$ranks" run
  refused "deck"
done

# The run folder: --check says what the run would.
echo mine >file
ln -s nowhere dangling
for check in --check --run.seed=1; do
  train 2 file $check
  refused "cannot create the run folder 'file'" "choose another run.folder"
  train 2 dangling $check
  refused "symbolic link to a place that does not exist"
  train 2 "$(printf 'x%.0s' {1..300})" $check
  refused "too long" "choose another run.folder"
  mkdir bad && touch bad/deck.ini
  ln -s ../prepared/data bad/data
  train 2 bad $check --run.stages=prepare,sft --restart replace
  refused "'bad/data' is a symbolic link" "take prepare out of run.stages"
  rm -r bad
done

# Stages that need each other.
bad --run.stages=ppo -- "stage" "sft" "run.stages"
bad --run.stages=reward,sft,ppo -- reward.init "before"
bad --sft.init=sft -- sft.init
bad --sft.init=ppo -- sft.init
bad --sft.init=no/such/checkpoint -- "no/such/checkpoint"
bad --run.stages=sft,ppo -- "reward"

# Datasets.
d=prepared/data
bad --sft.data= -- "sft.data"
bad --ppo.prompts= -- "ppo.prompts"
bad --sft.data=no-such.h5 -- "no-such.h5"
bad --evaluate.prompts=no-such.h5 -- "no-such.h5"
bad --sft.data=$d/preference.h5 -- "sft.data: '$d/preference.h5'" supervised
bad --reward.data=$d/sft.h5 -- "$d/sft.h5" preference
bad --ppo.prompts=$d/sft.h5 -- "$d/sft.h5" prompts
bad --sft.data="$here/small.ini" -- "small.ini"
head -c 20000 $d/sft.h5 >short.h5
bad --sft.data=short.h5 -- "short.h5"
"$COLLIMATE" prepare $d/heldout-sft.jsonl --output other-tokenizer.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
bad --sft.heldout=other-tokenizer.h5 -- "other-tokenizer.h5" tokenizer
"$COLLIMATE" prepare $d/heldout-preference.jsonl --output other-template.h5 --tokenizer $d/sft.h5 --prompt-template 'Q: {prompt} A:' \
  --group-pairs none >out.txt 2>&1 ||
  wrong "$(tail -n 3 out.txt)"
bad --reward.heldout=other-template.h5 -- reward.data template
# Of two stages, before the first one starts.
bad --reward.data=other-template.h5 --reward.heldout= --check -- "'other-template.h5' was made with another prompt template than reward.init = sft"
"$COLLIMATE" prepare $d/heldout-prompts.jsonl --kind prompts --output other-prompts.h5 --tokenizer $d/sft.h5 --prompt-template 'Q: {prompt} A:' \
  >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
bad --ppo.prompts=other-prompts.h5 --evaluate.prompts= -- "'other-prompts.h5' was made with another prompt template than ppo.actor = sft"
"$COLLIMATE" prepare $d/heldout-preference.jsonl --output large.h5 --like $d/sft.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
bad --reward.data=large.h5 -- "sample 0 of 'large.h5'" batch.grain_tokens "--group-pairs none"

# Lengths.
bad --model.context=16 -- "context" "16"
bad --batch.grain_tokens=16 -- "batch.grain_tokens"
bad --ppo.max_new=60 -- "ppo.max_new" "context"

bad --run.stages=sft --model.context=16 -- "sample" "$d/heldout-sft.h5" "model.context"
bad --run.stages=sft --batch.grain_tokens=16 -- "sample" "$d/heldout-sft.h5" "batch.grain_tokens = 16"
"$COLLIMATE" prepare $d/heldout-prompts.jsonl --kind prompts --output long.h5 --tokenizer $d/sft.h5 >out.txt 2>&1 --prompt-template \
  "$(printf 'very %.0s' {1..60}){prompt}" || wrong "$(tail -n 3 out.txt)"
bad --run.stages=ppo --ppo.actor=random --ppo.critic=random --ppo.reference=random --ppo.scorer=length --ppo.prompts=long.h5 \
  --evaluate.prompts= -- "prompt" "context"
bad --run.stages=evaluate --evaluate.model=random --evaluate.prompts= -- evaluate.prompts
bad --run.stages=evaluate --evaluate.model=no/such/model -- "no/such/model"

# The same where the run makes its own data: nothing is written, and the corrected command goes through.
made=(--run.stages=prepare,sft,reward,ppo --sft.data={run}/data/heldout-sft.h5 --sft.heldout= --reward.data={run}/data/heldout-preference.h5
  --reward.heldout= --ppo.prompts={run}/data/prompts.h5 --evaluate.prompts={run}/data/heldout-prompts.h5)
bad "${made[@]}" --grid.pipeline=2 --grid.data=1 --model.layers=1 -- grid.pipeline "1 blocks"
bad "${made[@]}" --model.heads=5 -- model.heads
bad "${made[@]}" --lora.rank=100 -- lora.rank
bad "${made[@]}" --sft.init=no/such/checkpoint --check -- no/such/checkpoint
bad "${made[@]}" --ppo.max_new=60 -- ppo.max_new context
bad "${made[@]}" --model.context=16 -- "sample" "'bad/data/heldout-sft.h5'" "model.context"
bad --run.stages=prepare,sft --sft.data={run}/data/no-such.h5 -- "bad/data/no-such.h5"
refusal=3 bad "${made[@]}" --memory.device=1000000 -- memory.device "engine.recompute = full" "placement.moments = host"
refusal=3 bad "${made[@]}" --placement.values=host --placement.moments=host --placement.gradients=host --memory.host=100000 -- memory.host "in host memory"
bad "${made[@]}" --device.memory=1000000 -- device.memory "it is --memory.device now"
bad "${made[@]}" --placement.values=host -- "placement.moments = host"
bad "${made[@]}" --placement.moments=host -- "they rest together"
bad "${made[@]}" --placement.moments=disk -- placement.moments "device, host"
mkdir -p bad/.collimate-0/data  # of a start that was killed, perhaps on another machine
train 2 bad "${made[@]}" --sft.steps=1 --reward.steps=1 --ppo.iterations=0
must_end_with 0
grep -q "warning: '.*bad/.collimate-0' was left by a start on another machine" bad/log.txt || wrong "what another start has left is not named"
[ -s bad/data/heldout-prompts.h5 ] || wrong "the run has no data"
[ -z "$(find . -maxdepth 2 -name '.collimate-*' ! -name .collimate-0)" ] || wrong "a folder is left"
rm -r bad

# Nothing of this size fits, and --check says so as well.
refusal=3 bad --batch.grain_tokens=100000000000 -- "the machine has"
refusal=3 bad --batch.grain_tokens=100000000000 --check -- "the machine has"

# The quickstart's preferred form of answers, of prompts that are not the quickstart's.
for i in 1 2; do printf '{"prompt": "Say %d.", "answer": "#### %d"}\n' $i $i; done >own.jsonl
"$COLLIMATE" prepare own.jsonl --kind prompts --output own.h5 --like $d/sft.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
bad --evaluate.prompts=own.h5 -- "evaluate.preferred counts" "prompt 0 of 'own.h5'" "leave evaluate.preferred out"
bad --evaluate.prompts=own.h5 --check -- "evaluate.preferred counts"
bad --run.stages=evaluate --evaluate.model=random --evaluate.prompts=own.h5 --ppo.scorer=length -- "evaluate.preferred counts"

# Scorers.
bad --ppo.scorer=lexicon --ppo.scorer_lexicon=no-such.txt -- "no-such.txt"
bad --ppo.scorer=lexicon -- "ppo.scorer = lexicon needs ppo.scorer_lexicon"
bad --ppo.scorer=regex "--ppo.scorer_pattern=(" -- "("
bad --ppo.scorer=regex -- ppo.scorer_pattern
by=(--run.stages=sft,ppo --ppo.critic=sft)
bad "${by[@]}" --ppo.scorer=process -- "command"
printf '#!/bin/sh\n' >plain.sh
for check in "--run.seed=1" --check; do
  bad "${by[@]}" --ppo.scorer=process "--ppo.scorer_command=./no-such.sh 1" $check -- ppo.scorer_command "no file './no-such.sh'"
  bad "${by[@]}" --ppo.scorer=process --ppo.scorer_command=./plain.sh $check -- "'./plain.sh' is not executable"
  bad "${by[@]}" --ppo.scorer=exact $check -- ppo.scorer "prompt 0 of 'prepared/data/prompts.h5' has the answer"
done
bad "${by[@]}" --ppo.scorer=process --ppo.scorer_command=no-such-program --check -- "no program 'no-such-program'"
