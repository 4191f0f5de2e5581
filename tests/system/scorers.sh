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
# Nothing is learned where no response has a number: the log says so once, and why.
[ "$(grep -c 'the scorer exact gives all 16 samples the score 0, from which nothing is learned' exact-2/log.txt)" = 1 ] ||
  wrong "equal scores are not told of once: $(grep exact exact-2/log.txt)"
grep -qF 'ppo.exact_answer' exact-2/log.txt || wrong "the reason of equal scores is not named"

# Prompts whose answers cannot match anything are refused at the start and by --check.
printf '{"prompt": "How many?", "answer": "a few"}\n' >vague.jsonl
printf '{"prompt": "How many?"}\n' >silent.jsonl
for name in vague silent; do
  "$COLLIMATE" prepare $name.jsonl --kind prompts --output $name.h5 --like $d/sft.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
  for check in "" --check; do
    train 1 $name "${ppo[@]}" --ppo.scorer=exact --ppo.prompts=$name.h5 $check
    refused "ppo.scorer = exact" "prompt 0 of '$name.h5'"
    [ ! -e $name ] || wrong "$name was begun"
  done
done

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

# With run.sample_ids the program and samples.jsonl see the same token ids; without, none.
grep -q _ids process-2/samples.jsonl && wrong "samples.jsonl has token ids that nobody asked for"
printf '#!/bin/sh\nwhile read -r line; do printf "%%s\\n" "$line" >>"$1"; echo "${#line}"; done\n' >echo.sh
chmod +x echo.sh
same ids --ppo.scorer=process "--ppo.scorer_command=./echo.sh seen.txt" --run.sample_ids=true
ids() { grep -o '"prompt_ids":\[[0-9,]*\],"response_ids":\[[0-9,]*\]' "$1"; }
[ "$(ids ids-2/samples.jsonl | grep -c '"response_ids":\[[0-9]')" = 32 ] || wrong "samples.jsonl lacks token ids"
cmp <(ids ids-2/samples.jsonl) <(ids seen.txt | tail -n 32) || wrong "the scorer sees other ids than samples.jsonl has"

# A model that has learned one answer by heart: its number stands behind the last mark that has one, and the words of a list are found whatever
# the list begins with and however they are spelled.
cat >heart.ini <<'DECK'
[model]
layers = 2
width = 64
heads = 4
context = 64
[sft]
data = heart.h5
batch = 6
steps = 120
rate = 0.01
warmup = 10
log_every = 50
checkpoint_every = 0
[evaluate]
temperature = 0
max_new = 50
DECK
# heart NAME RESPONSE ANSWER SCORE OPTION...
heart() {
  local name=$1 response=$2 answer=$3 score=$4
  shift 4
  for i in 0 1 2 3 4 5; do printf '{"prompt":"q%d","response":"%s"}\n' "$i" "$response"; done >heart.jsonl
  printf '{"prompt":"q0","answer":"%s"}\n' "$answer" >asked.jsonl
  rm -f heart.h5 asked.h5
  "$COLLIMATE" prepare heart.jsonl --output heart.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
  "$COLLIMATE" prepare asked.jsonl --like heart.h5 --kind prompts --output asked.h5 >out.txt 2>&1 || wrong "$(tail -n 3 out.txt)"
  run 1 run heart.ini --run.folder="$name" --run.stages=sft --run.stages=evaluate --evaluate.model=sft --evaluate.prompts=asked.h5 "$@"
  must_end_with 0
  grep -qF '"raw_reward":'"$score"',' "$name/samples.jsonl" || wrong "$name: not $score: $(cat "$name/samples.jsonl")"
}
heart case35 '#### Plan\nAdd both.\n#### 18' '#### 18' 1 --ppo.scorer=exact
heart unmarked 'It is 18.' '#### 18' 0 --ppo.scorer=exact
heart lastnumber 'It is 18.' '#### 18' 1 --ppo.scorer=exact --ppo.exact_answer=last_number
printf '\xef\xbb\xbfgood\t3\nbad\t-3\n' >marked.txt
heart case36 'good day' '' 3 --ppo.scorer=lexicon --ppo.scorer_lexicon=marked.txt
printf 'good\t1.9\t0.9\t[2, 1]\n\xc3\xa9t\xc3\xa9\t2\t0.5\t[2]\n' >columns.txt
heart columns 'GOOD \u00c9T\u00c9' '' 3.9 --ppo.scorer=lexicon --ppo.scorer_lexicon=columns.txt --ppo.scorer_value_column=2
run 1 run heart.ini --run.folder=bad --run.stages=evaluate --evaluate.model=case36/checkpoints/sft --evaluate.prompts=asked.h5 --ppo.scorer=lexicon --ppo.scorer_lexicon=columns.txt
refused "line 1 of the lexicon 'columns.txt' has 4 columns" ppo.scorer_value_column

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
