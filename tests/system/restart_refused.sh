#!/usr/bin/env bash
# What a restart refuses, and what it leaves alone.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
small=(--run.stages=sft --sft.heldout=)
for ranks in 1 2; do
  rm -rf one before
  train "$ranks" one "${small[@]}" --run.stop_after=3
  must_end_with 75
  cp -r one before

  train "$ranks" one "${small[@]}"
  refused "'one' already holds a run" "--restart auto"
  train "$ranks" one "${small[@]}" --sft.rate=2e-3 --restart auto
  refused "another deck" "[sft] 'rate = 0.003' then, 'rate = 0.002' now" "--restart replace"
  train "$ranks" one "${small[@]}" --sft.rate=2e-3 --restart auto --check
  refused "another deck"
  diff -r before one >&2 || wrong "a refused start has changed the run folder"
done

# A checkpoint that another machine has written.
"$FORGE" before/checkpoints/sft-3 one/checkpoints/sft-3 '"instruction_set":"' '"instruction_set":"neon '
train 2 one "${small[@]}" --restart auto
refused "instruction set" "--allow-new-bits"
train 2 one "${small[@]}" --restart auto --allow-new-bits
must_end_with 0

# Files that are not what they were; a finished stage does not read its own again.
cp prepared/data/heldout-sft.h5 mine.h5
printf 'good\t3\nthe\t1\n' >words.txt
mine=(--sft.data=mine.h5 --sft.heldout= --ppo.scorer=lexicon --ppo.scorer_lexicon=words.txt --ppo.critic=sft --ppo.normalise_samples=0 --ppo.iterations=2)
train 2 swapped "${mine[@]}" --run.stages=sft,ppo --run.stop_after=3
must_end_with 75
cp prepared/data/sft.h5 mine.h5
train 2 swapped "${mine[@]}" --run.stages=sft,ppo --restart auto
refused "sft.data is not what it was when the checkpoint 'swapped/checkpoints/sft-3' was made" "--restart replace"
cp prepared/data/heldout-sft.h5 mine.h5
train 2 swapped "${mine[@]}" --run.stages=sft,ppo --restart auto --run.stop_after=4  # three of SFT, one of PPO
must_end_with 75
cp prepared/data/sft.h5 mine.h5
sed -i 's/3/-3/' words.txt
train 2 swapped "${mine[@]}" --run.stages=sft,ppo --restart auto
refused "ppo.scorer_lexicon is not what it was" "ppo-1"
sed -i 's/-3/3/' words.txt
rm mine.h5
train 2 swapped "${mine[@]}" --run.stages=sft,ppo --restart auto
must_end_with 0
cp prepared/data/heldout-sft.h5 mine.h5
train 1 straight "${mine[@]}" --run.stages=sft,ppo
must_end_with 0
same_run straight swapped

# Starting over.
train 1 fresh "${small[@]}"
mkdir one/checkpoints/best
echo mine >one/checkpoints/best/letter.txt
train 2 one "${small[@]}" --restart replace
must_end_with 0
same_run fresh one
must_print "files in 'one' that are not of the run are left alone: checkpoints/best"
[ "$(cat one/checkpoints/best/letter.txt)" = mine ] || wrong "a foreign file is gone"
mv one/checkpoints theirs
ln -s ../theirs one/checkpoints
for check in --check --run.seed=1; do
  train 2 one "${small[@]}" --restart replace $check
  refused "'one/checkpoints' is a symbolic link" "remove the link"
done
[ -s theirs/sft/manifest.json ] || wrong "what lies behind a link is gone"
mkdir foreign && echo mine >foreign/letter.txt
train 1 foreign "${small[@]}" --restart replace
refused "'foreign'" "not replaced"
[ "$(cat foreign/letter.txt)" = mine ] || wrong "a foreign file is gone"
