#!/usr/bin/env bash
# State hashes and metrics of twelve small decks, against those recorded in hashes.txt.
#   tests/grids/hashes.sh            compares; exit code 77 (skipped) on another kind of processor or C library than the recorded one
#   tests/grids/hashes.sh record     prints what hashes.txt should hold
# A change of structure must not change a line. COLLIMATE is the program, PREPARED the folder with small.ini's data (see system/prepare.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_NUM_THREADS=1
rm -rf -- runs && mkdir runs
ln -sfn "$PREPARED" prepared

# The C library's exp and log depend on the processor: FMA or not, and on its version.
machine() {
  awk -F': ' '/^vendor_id|^cpu family/ { printf "%s ", $2 } /^processor.*: 1$/ { exit }' /proc/cpuinfo
  getconf GNU_LIBC_VERSION
}

deck() {  # NAME [option...]
  local name=$1
  shift
  "$COLLIMATE" run "$here/../system/small.ini" --run.folder="runs/$name" "$@" >"runs/$name.out" 2>&1 </dev/null ||
    { printf 'WRONG: %s ended with exit code %s\n' "$name" $? >&2; tail -n 3 "runs/$name.out" >&2; return 1; }
  printf '%s' "$name"
  sed -n 's/^  "\([a-z]*\.\{0,1\}state_hash\|ppo\.critic_hash\)": "\([^"]*\)".*/ \2/p' "runs/$name/summary.json" | tr -d '\n'
  printf ' metrics %s\n' "$(cat "runs/$name"/metrics.jsonl "runs/$name"/hashes.jsonl 2>/dev/null | md5sum | cut -c1-16)"
}

decks() {
  deck llama
  deck gpt2 --model.family=gpt2 --model.kv_heads=0
  deck gpt2_dropout --model.family=gpt2 --model.kv_heads=1 --model.dropout=0.1 --numerics.tensor_shards=2
  deck qwen2 --model.family=qwen2 --model.width=30 --model.heads=6 --model.kv_heads=3 --model.head_size=6 --numerics.tensor_shards=4
  deck mistral --model.family=mistral --model.tied=false
  deck shards --model.heads=4 --model.kv_heads=4 --numerics.tensor_shards=4
  deck uneven --model.layers=3 --model.width=30 --model.heads=6 --model.head_size=6 --model.mlp=37 --model.tied=false --numerics.tensor_shards=4
  deck lora --lora.rank=2 --lora.targets=query,value,up,output --ppo.actor=sft
  deck lora_dropout --model.family=gpt2 --model.kv_heads=0 --lora.rank=3 --lora.targets=key,down,query --lora.dropout=0.1 --numerics.tensor_shards=2
  deck long_grains --batch.grain_tokens=700 --sft.batch=40 --ppo.epochs=1
  deck rope --model.rope_scaling=linear --model.rope_factor=2 --ppo.lambda=0.9 --ppo.whiten=false
  deck entropy --ppo.entropy=0.01 --ppo.temperature=0.7 --reward.steps=3 --sft.schedule=cosine
}

if [ "${1:-}" = record ]; then
  machine
  decks
  exit 0
fi
recorded=$here/hashes.txt
if [ "$(head -n 1 "$recorded")" != "$(machine)" ]; then
  echo "skipped: recorded on $(head -n 1 "$recorded"), and this is $(machine)"
  exit 77
fi
decks >now.txt
diff <(tail -n +2 "$recorded") now.txt || { echo "WRONG: these decks give other numbers than recorded (<)" >&2; exit 1; }
echo "$(wc -l <now.txt) decks give the recorded numbers"
