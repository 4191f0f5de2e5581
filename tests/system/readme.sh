#!/usr/bin/env bash
# readme.sh: what README.md tells a user to type (its blocks marked `sh`) does what it says, in order, in one folder. Left to others: the first
# block (.ci/run gives its commands) and the number of steps of whole runs, which is cut.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
root=$(cd "$here/../.." && pwd)
source "$root/tests/setup.sh"
prepare_mpirun
export OMP_NUM_THREADS=1
ln -s "$root/inputs" inputs
mkdir -p build/bin path/to
ln -s "$COLLIMATE" build/bin/collimate

# The user's own model, in Hugging Face's form, and data: instructions, pairs, prompts.
train 1 seed --run.stages=sft --sft.steps=2 --model.context=192
must_end_with 0
run 1 export --checkpoint seed/checkpoints/sft --output path/to/model
must_end_with 0
for i in $(seq 40); do printf '{"instruction": "Count to %d.", "input": "slowly", "output": "One, two, up to %d."}\n' "$i" "$i"; done >sft.jsonl
for i in $(seq 40); do printf '{"prompt": "Count to %d.", "chosen": "Up to %d!", "rejected": "No."}\n' "$i" "$i"; done | gzip >pairs.jsonl.gz
for i in $(seq 40); do printf '{"prompt": "Count to %d."}\n' "$i"; done >prompts.jsonl

awk '/^```sh$/ { block++; printing = block > 1; next } /^```$/ { printing = 0 } printing' "$root/README.md" >typed.sh
short='--sft.steps=3 --reward.steps=3 --ppo.iterations=1'
sed -i -e "/runs\/ranks/! s/collimate run [^ ]*\.ini/& $short/" -e '/collimate diff runs\/mine/ i cp -r runs/mine runs/other' typed.sh
for command in 'run inputs/quickstart' 'for n in' cmp 'grid.pipeline=2' import 'prepare pairs' 'run my.ini' inspect diff generate export; do
  grep -q -- "$command" typed.sh || wrong "README.md no longer has a block marked sh with '$command'"
done
code=0
timeout "$limit" bash -euxo pipefail typed.sh >out.txt 2>err.txt </dev/null || code=$?
must_end_with 0 "the README's commands"
must_print "share of preferred answers"
grep -qx equal out.txt || wrong "the runs on 1, 2 and 3 ranks are not called equal"
for file in runs/grid/summary.json runs/mine/summary.json exported/config.json exported/model.safetensors; do
  [ -s "$file" ] || wrong "the README's commands left no $file"
done

# What has been learned is not overwritten by an import; what was imported may be.
run 1 import --model path/to/model --output runs/mine/checkpoints/ppo
must_end_with 2
must_say "what the stage ppo has learned"
run 1 import --model path/to/model --output checkpoints/base
must_end_with 0

# Ends of text that are not the tokenizer's are said, and end a response too.
! grep -q "ends a response" out.txt || wrong "the model's own end is called another one"
sed -i 's/"eos_token_id": *[0-9]*/"eos_token_id": [5, 6]/' path/to/model/config.json
run 1 import --model path/to/model --output checkpoints/base
must_end_with 0
must_print "each of these tokens ends a response: 1 (<|endoftext|>), 5"
