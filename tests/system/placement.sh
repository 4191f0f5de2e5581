#!/usr/bin/env bash
# Words for ZeRO and placement, placement.layout = auto, and restarts from one placement to another: the bytes of one resident rank.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
export OMP_NUM_THREADS=1
short=(--sft.steps=3 --reward.steps=3 --ppo.iterations=2)
train 1 one "${short[@]}"
must_end_with 0

for word in ddp zero1 colossalai_zero2 zero3 gemini zero1_cpu zero2_cpu colossalai_zero3_cpu gemini_cpu; do
  train 2 other --restart=replace "${short[@]}" --strategy="$word"
  must_end_with 0 "$word"
  same_run one other
done
# What a word chose stands in the deck of the run.
for line in "zero = 3" "values = host" "moments = host" "gradients = host"; do
  grep -qxF "$line" other/deck.ini || wrong "gemini_cpu: no line '$line' in deck.ini"
done
train 2 other --restart=replace --strategy=gemni
refused "--strategy = gemni" "did you mean gemini"
train 2 other --restart=replace --strategy=ddp --params.zero=2
refused "--strategy = ddp" "--params.zero=2"

# As little on the host as fits: less room, more of it.
places=()
for cap in 0 3MiB 2MiB 1600KiB 1300KiB; do
  train 1 other --restart=replace "${short[@]}" --placement.layout=auto --memory.device="$cap"
  [ "$code" = 0 ] || { refusal=3 refused memory.device; break; }
  same_run one other
  places+=("$(sed -n 's/^placement.layout = auto: //p' other/log.txt)")
done
printf '%s\n' "${places[@]}"
[ "${places[0]}" = "placement.values = device, placement.moments and .gradients = device, engine.group = 1" ] || wrong "without a cap: ${places[0]}"
train 1 other --restart=replace "${short[@]}" --check --model.width=256 --run.stages=sft --engine.recompute=full --placement.layout=auto --memory.device=20MiB
must_end_with 0
grep -q '^placement.layout = auto:.* engine.group = [2-9]' out.txt || wrong "groups of grains would save traffic"
must_print "between host and device: about"
# Where parameters that are gathered whole for a rollout do not fit, they are gathered for each token.
wide=("${short[@]}" --check --model.width=256 --engine.recompute=full --memory.device=14MiB)
train 2 other --restart=replace "${wide[@]}" --params.zero=3 --placement.layout=auto
must_end_with 0
grep -q '^placement.layout = auto:.* placement.rollouts = streamed$' out.txt || wrong "rollouts could be streamed"
train 2 other --restart=replace "${wide[@]}" --strategy=gemini_cpu
refusal=3 refused "memory.device" "set placement.rollouts = streamed"
train 2 other --restart=replace "${wide[@]}" --strategy=gemini_cpu --placement.rollouts=streamed
must_end_with 0
train 1 other --restart=replace "${short[@]}" --placement.layout=auto --memory.device=2MiB --engine.group=2
must_end_with 0
grep -q '^placement.layout = auto:.*engine.group = 2$' other/log.txt || wrong "engine.group is chosen although it is given"
[ "$(printf '%s\n' "${places[@]}" | sort -u | wc -l)" -ge 3 ] || wrong "the cap does not matter"
train 1 other --restart=replace "${short[@]}" --placement.layout=auto --memory.device=100000
refusal=3 refused memory.device

# Where nobody looks at values between steps, most steps of what rests on the host wait until it is used next. The same numbers.
train 1 quiet "${short[@]}" --run.hash=gradients
must_end_with 0
[ "$(value quiet/summary.json ppo.state_hash)" = "$(value one/summary.json ppo.state_hash)" ] || wrong "run.hash = gradients changes the result"
[ "$(grep -c '"phase":"value"' quiet/hashes.jsonl)" = 0 ] || wrong "values are hashed with run.hash = gradients"
train 1 other --restart=replace "${short[@]}" --run.hash=gradients --strategy=gemini_cpu
must_end_with 0
same_run quiet other
for stage in sft reward ppo; do
  share=$(sed -n "s/^$stage .*stepped when they were used next (\([0-9]*\) %)$/\1/p" other/log.txt)
  holds "${share:-0} >= 50" "$stage: ${share:-no} % of the steps were pending"
done
train 1 other --restart=replace "${short[@]}" --run.hash=gradients --strategy=gemini_cpu --placement.steps=at_once
must_end_with 0
same_run quiet other
! grep -q 'stepped when they were used next' other/log.txt || wrong "placement.steps = at_once does not matter"

# Commands that hold a model obey the caps: what the device has no room for rests on the host, and the answers are the same.
run 1 generate --checkpoint one/checkpoints/ppo --prompt "What is the capital of France?" --seed 3 --samples 3
must_end_with 0
cp out.txt whole.txt
fitted=0
for cap in 900KiB 700KiB 500KiB 300KiB 200KiB; do
  run 1 generate --checkpoint one/checkpoints/ppo --prompt "What is the capital of France?" --seed 3 --samples 3 --memory.device="$cap"
  [ "$code" = 0 ] || { refusal=3 refused memory.device; break; }
  cmp out.txt whole.txt || wrong "another answer with --memory.device=$cap"
  fitted=$((fitted + 1))
done
[ $fitted -ge 1 ] && [ $fitted -le 4 ] || wrong "$fitted caps fit"
run 1 export --checkpoint one/checkpoints/ppo --output exported --memory.device=1000
must_end_with 0
run 1 import --model exported --output imported --memory.device=1000
must_end_with 0
run 1 export --checkpoint one/checkpoints/ppo --output again --memory.host=1000
refusal=3 refused memory.host

# Each start with another placement, on another number of ranks.
placements=("--strategy=zero2_cpu" "--placement.values=host:0.5 --placement.moments=host --placement.gradients=host" "--strategy=ddp" "--strategy=gemini_cpu"
  "--placement.moments=host:0.5 --placement.gradients=host:0.5 --params.zero=1" "--strategy=zero3" "--strategy=zero1_cpu")
start=0
code=75
while [ "$code" = 75 ]; do
  [ $start -lt 20 ] || wrong "no end"
  # shellcheck disable=SC2086
  train $((start % 3 + 1)) stopped --restart=auto "${short[@]}" --run.stop_after=1 ${placements[start++ % ${#placements[@]}]}
done
must_end_with 0
[ $start -gt 6 ] || wrong "only $start starts"
same_run one stopped
