# What the tests of whole runs share. A test is `NAME.sh [arguments]`, started by ctest in its own scratch folder with
#   COLLIMATE  the program         MPIRUN  mpirun and its options         PREPARED  a folder made by prepare.sh
# and ends at the first expectation that does not hold, with a line that says which.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OMP_WAIT_POLICY=passive
# A container's system call filter may refuse process_vm_readv; Open MPI then complains at every large message.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
limit=${LIMIT:-300}  # seconds: what hangs ends with code 124
rm -rf -- ./*
[ -z "${PREPARED:-}" ] || ln -s "$PREPARED" prepared

wrong() { printf 'WRONG: %s\n' "$*" >&2; exit 1; }

# run RANKS ARGUMENT...: the program; its exit code in $code, what it printed in out.txt and err.txt.
run() {
  local ranks=$1
  shift
  code=0
  # shellcheck disable=SC2086
  timeout "$limit" $MPIRUN -np "$ranks" "$COLLIMATE" "$@" >out.txt 2>err.txt </dev/null || code=$?
  [ "$code" != 124 ] || wrong "no end after $limit s: $ranks ranks, $*"
}

# train RANKS FOLDER ARGUMENT...: the small deck.
train() {
  local ranks=$1 folder=$2
  shift 2
  run "$ranks" run "$here/small.ini" --run.folder="$folder" "$@"
}

must_end_with() {
  [ "$code" = "$1" ] || { tail -n 20 out.txt err.txt >&2; wrong "exit code $code instead of $1${2:+: $2}"; }
}
must_say() { grep -qF -- "$1" err.txt || { head -n 20 err.txt >&2; wrong "nothing on stderr says '$1'"; }; }
must_print() { grep -qF -- "$1" out.txt || { head -n 40 out.txt >&2; wrong "nothing on stdout says '$1'"; }; }

# refused TEXT...: exit code 2, and one sentence, said once, that holds every text.
refused() {
  must_end_with "${refusal:-2}" "$*"
  local text
  for text in "$@"; do must_say "$text"; done
  [ "$(grep -c '^error: ' err.txt)" = 1 ] || { head -n 20 err.txt >&2; wrong "the error is not said once"; }
}

# value FILE KEY: of a summary.json.
value() { sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$1"; }
holds() { awk "BEGIN { exit !($1) }" </dev/null || wrong "not so: $1${2:+ ($2)}"; }

# same_run A B: the numbers of two runs are equal to the last byte.
same_run() {
  local name
  for name in metrics.jsonl samples.jsonl hashes.jsonl; do
    cmp "$1/$name" "$2/$name" >&2 || { diff "$1/$name" "$2/$name" | cut -c 1-400 | head -n 4 >&2; wrong "$name of $1 and $2 differ"; }
  done
  [ -s "$1/metrics.jsonl" ] || wrong "$1/metrics.jsonl is empty"
  local a b
  a=$(grep -v -e '\.seconds"' -e peak_memory "$1/summary.json") b=$(grep -v -e '\.seconds"' -e peak_memory "$2/summary.json")
  [ "$a" = "$b" ] || { diff <(echo "$a") <(echo "$b") >&2; wrong "summary.json of $1 and $2 differ"; }
  [ -n "$(value "$1/summary.json" state_hash)" ] || wrong "$1/summary.json has no state_hash"
}
