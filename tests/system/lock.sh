#!/usr/bin/env bash
# Two runs into one folder at once: the second is refused on all ranks and harms nothing; a killed run keeps nobody out.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
only=(--run.stages=sft --sft.heldout=)
train 2 alone "${only[@]}" --sft.steps=3
must_end_with 0

for ranks in 1 2; do
  rm -rf shared
  # shellcheck disable=SC2086
  $MPIRUN -np "$ranks" "$COLLIMATE" run "$here/small.ini" --run.folder=shared "${only[@]}" --sft.steps=1000000 >first.txt 2>&1 </dev/null &
  first=$!
  trap 'kill "$first" 2>/dev/null || true' EXIT
  for _ in $(seq 600); do [ -s shared/metrics.jsonl ] && break; sleep 0.1; done
  [ -s shared/metrics.jsonl ] || wrong "the first run does not start: $(tail -n 3 first.txt)"
  for restart in none auto replace; do
    train "$ranks" shared "${only[@]}" --restart $restart
    refused "'shared' is in use by another run"
  done
  train "$ranks" shared "${only[@]}" --check  # only looks, and says what the run would say
  must_end_with 2
  must_print "Memory of the largest stage"
  must_say "already holds a run"
  [ -e shared/deck.ini ] && [ "$(head -c 15 shared/metrics.jsonl)" = '{"stage":"sft",' ] || wrong "the first run's files have suffered"
  # The ranks first: those that outlive mpirun would hold the lock for a moment.
  # shellcheck disable=SC2046
  kill -9 $(pgrep -P "$first") "$first"
  wait "$first" 2>/dev/null || true
  for _ in $(seq 50); do
    train "$ranks" shared "${only[@]}" --sft.steps=3 --restart replace
    [ "$code" = 2 ] || break
    sleep 0.1
  done
  must_end_with 0
  same_run alone shared
done
