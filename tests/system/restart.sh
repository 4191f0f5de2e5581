#!/usr/bin/env bash
# A run that is stopped and goes on, each time on another number of ranks, writes the bytes of one that is not.
# restart.sh stops: at steps in the middle of every stage and at their edges;   restart.sh kills: killed at any moment.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
export OMP_NUM_THREADS=1
options=(--ppo.freeze_actor=1)  # so that the steps of actor and critic differ
[ "$1" = stops ] || options=(--sft.steps=20 --sft.checkpoint_every=3 --reward.steps=15 --reward.checkpoint_every=3 --ppo.iterations=10 --ppo.checkpoint_every=1)

train 1 whole "${options[@]}"
must_end_with 0

if [ "$1" = stops ]; then
  # 6 steps of SFT, 5 of the reward model, 4 iterations: stops within SFT, at its end, within and at the end of the reward model, within PPO.
  ranks=2
  for stop in 2 2 2 3 2 1 2; do
    train "$ranks" stopped --restart auto --run.stop_after="$stop" "${options[@]}"
    must_end_with 75 "stop after $stop steps"
    must_say "continue with --restart auto"
    ranks=$((ranks % 3 + 1))
  done
  train "$ranks" stopped --restart auto "${options[@]}"
  must_end_with 0
  same_run whole stopped
  [ "$(grep -c . stopped/metrics.jsonl)" = "$(grep -c . whole/metrics.jsonl)" ] || wrong "lines are missing"
  # The seconds of a stage are those of all its starts: at least its steps' together.
  for stage in sft reward ppo; do
    steps=$(grep "\"stage\":\"$stage\",\"step\"" stopped/timings.jsonl | sed 's/.*"seconds":\([^,]*\),.*/\1/' | awk '{ s += $1 } END { print s + 0 }')
    holds "$steps > 0 && $(value stopped/summary.json $stage.seconds) >= $steps" "$stage.seconds"
  done
  # What is done is not done again.
  train 2 stopped --restart auto "${options[@]}"
  must_end_with 0
  must_print "ppo    finished earlier"
  same_run whole stopped
  holds "$(value stopped/summary.json sft.seconds) > 0" "sft.seconds of a run that was done"
  # The stages one by one in one folder.
  train 2 single --run.stages=sft "${options[@]}"
  must_end_with 0
  train 1 single --run.stages=reward --restart auto "${options[@]}"
  must_end_with 0
  train 2 single --run.stages=ppo --restart auto "${options[@]}"
  must_end_with 0
  same_run whole single
else
  RANDOM=${SEED:-7}
  kills=0
  for ranks in 2 1 2 3 1 2 1 2; do
    # shellcheck disable=SC2086
    $MPIRUN -np "$ranks" "$COLLIMATE" run "$here/small.ini" --run.folder=killed --restart auto "${options[@]}" >out.txt 2>err.txt </dev/null &
    job=$!
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    # The ranks first: those that outlive mpirun would go on writing for a moment.
    # shellcheck disable=SC2046
    kill -9 $(pgrep -P "$job") "$job" 2>/dev/null || true
    code=0
    wait "$job" 2>/dev/null || code=$?
    [ "$code" = 0 ] && break
    kills=$((kills + 1))
  done
  echo "killed $kills times; checkpoints at the last: $(ls killed/checkpoints 2>/dev/null | tr '\n' ' ')"
  [ "$kills" -gt 0 ] || wrong "the run was too fast to be killed"
  train 2 killed --restart auto "${options[@]}"
  must_end_with 0
  same_run whole killed
fi
