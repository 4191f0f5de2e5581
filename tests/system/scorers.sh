#!/usr/bin/env bash
# PPO with every kind of scorer, on 1 and 2 ranks; failing ones stop all ranks in time with a sentence.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
limit=120
d=prepared/data
train 2 start --run.stages=sft
must_end_with 0
start=start/checkpoints/sft
ppo=(--run.stages=ppo --ppo.actor=$start --ppo.critic=$start --ppo.reference=$start --ppo.iterations=2 --evaluate.prompts= --ppo.normalise_samples=0 --ppo.samples_logged=0)

# same FOLDER OPTION...: 1 and 2 ranks agree, and every sample has a score.
same() {
  local folder=$1
  shift
  train 1 "$folder-1" "${ppo[@]}" "$@"
  must_end_with 0
  train 2 "$folder-2" "${ppo[@]}" "$@"
  must_end_with 0
  same_run "$folder-1" "$folder-2"
  [ "$(grep -c '"score":' "$folder-2/samples.jsonl")" = 32 ] || wrong "not every sample has a score"
}

printf 'good\t3\nbad\t-3\nthe\t1\n' >words.txt
same lexicon --ppo.scorer=lexicon --ppo.scorer_lexicon=words.txt
same regex --ppo.scorer=regex '--ppo.scorer_pattern=[aeiou]'
same length --ppo.scorer=length --ppo.scorer_length=10

# Questions with a final number: a response that holds it gets 1.
for i in 1 2 3 4; do
  printf '{"prompt": "What is %d plus %d?", "answer": "%d and %d are\\n#### %d"}\n' "$i" "$i" "$i" "$i" $((2 * i))
done >sums.jsonl
"$COLLIMATE" prepare sums.jsonl --kind prompts --output sums.h5 --like $d/sft.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
same exact --ppo.scorer=exact --ppo.prompts=sums.h5

# Another program: it sees one JSON line per sample, in order, and is started once.
cat >vowels.sh <<'PROGRAM'
#!/bin/sh
echo started >>"$1"
while read -r line; do
  response=${line##*\"response\":\"}
  response=${response%%\",\"answer\"*}
  printf '%s\n' "$(printf %s "$response" | tr -cd aeiou | wc -c)"
done
PROGRAM
chmod +x vowels.sh
same process --ppo.scorer=process "--ppo.scorer_command=./vowels.sh starts.txt"
[ "$(grep -c . starts.txt)" = 2 ] || wrong "the scorer was started $(grep -c . starts.txt) times in two runs"

# What fails.
fails() { # NAME BODY TEXT...
  local name=$1
  printf '#!/bin/sh\n%s\n' "$2" >"$name.sh"
  chmod +x "$name.sh"
  shift 2
  local ranks start=$SECONDS
  for ranks in 1 2; do
    rm -rf "$name"
    train "$ranks" "$name" "${ppo[@]}" --ppo.scorer=process "--ppo.scorer_command=./$name.sh" --ppo.scorer_deadline=2
    refused "./$name.sh" "$@"
  done
  [ $((SECONDS - start)) -lt 90 ] || wrong "$name: it took $((SECONDS - start)) s to notice"
}
fails slow 'sleep 600' "2 seconds" "sample 0"
fails dying 'read -r a; echo 1; read -r b; echo out of cheese >&2; exit 3' "3" "sample 1" "out of cheese"
fails not_a_number 'read -r a; echo 1; read -r b; echo nan; sleep 600' "not finite" "sample 1"
fails infinite 'read -r a; echo inf; sleep 600' "not finite" "sample 0"
fails talking 'read -r a; echo fine; sleep 600' "neither a number" "sample 0"
fails silent 'exit 0' "sample 0"
fails huge 'while read -r a; do echo 1e39; done' "gives sample 0 the score 1e+39" "3.4e+38"

# One that ends in an error when all is scored: the run is done, and says so. One that does not end is ended.
for body in 'n=0; while [ $((n += 1)) -le 32 ] && read -r a; do echo 1; done; echo no room >&2; exit 3' \
  'while read -r a; do echo 1; done; echo no room >&2; exit 3' 'while read -r a; do echo 1; done' 'while read -r a; do echo 1; done; sleep 600'; do
  printf '#!/bin/sh\n%s\n' "$body" >late.sh
  chmod +x late.sh
  rm -rf late
  train 2 late "${ppo[@]}" --ppo.scorer=process --ppo.scorer_command=./late.sh
  must_end_with 0
  if [[ $body = *exit* ]]; then
    cat out.txt err.txt | grep -qF "warning: the scorer './late.sh' exited with status 3 after its last score" || wrong "a bad end is not said: $body"
    grep -q "no room" late/log.txt || wrong "the log does not have the scorer's words"
  else
    ! grep -q "after its last score" out.txt err.txt late/log.txt || wrong "a good end is called a bad one: $body"
  fi
done
