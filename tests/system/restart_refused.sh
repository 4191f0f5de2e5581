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
  refused "'one' is not empty" "restart"
  train "$ranks" one "${small[@]}" --sft.rate=2e-3 --restart auto
  refused "another deck" "[sft] 'rate = 0.003' then, 'rate = 0.002' now" "--restart replace"
  diff -r before one >&2 || wrong "a refused start has changed the run folder"
done

# A checkpoint that another machine has written.
"$FORGE" before/checkpoints/sft-3 one/checkpoints/sft-3 '"instruction_set":"' '"instruction_set":"neon '
train 2 one "${small[@]}" --restart auto
refused "instruction set" "--allow-new-bits"
train 2 one "${small[@]}" --restart auto --allow-new-bits
must_end_with 0

# Starting over.
train 1 fresh "${small[@]}"
mkdir one/checkpoints/best
echo mine >one/checkpoints/best/letter.txt
train 2 one "${small[@]}" --restart replace
must_end_with 0
same_run fresh one
must_print "what is no part of a run stays in 'one': checkpoints/best"
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
