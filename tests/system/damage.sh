#!/usr/bin/env bash
# Damaged checkpoints and full disks: a sentence, no hang, and what was good stays good.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
limit=60
only=(--run.stages=sft --sft.heldout=)

flip() { # FILE: the bytes in its middle
  local size
  size=$(stat -c %s "$1")
  printf '\377\001\377\001\377\001\377\001' | dd of="$1" bs=1 seek=$((size / 2)) conv=notrunc status=none
}

train 1 whole "${only[@]}"
must_end_with 0

# not_started RANKS TEXT...: a run from damaged/checkpoints/sft is refused before it makes a run folder, and so is its --check.
not_started() {
  local ranks=$1 check
  shift
  for check in "" --check; do
    train "$ranks" next --run.stages=reward --reward.init=damaged/checkpoints/sft $check
    refused "damaged/checkpoints/sft" "$@"
    [ ! -e next ] || wrong "a run folder is left"
  done
}

# A checkpoint that others start from.
for ranks in 1 2; do
  cp -r whole damaged
  flip "$(ls damaged/checkpoints/sft/*.h5 | head -n 1)"
  not_started "$ranks" checksum
  head -c 500 whole/checkpoints/sft/manifest.json >damaged/checkpoints/sft/manifest.json
  not_started "$ranks"
  rm -r damaged/checkpoints/sft
  "$FORGE" whole/checkpoints/sft damaged/checkpoints/sft '"layers":2' '"layers":3'
  not_started "$ranks" "no tensor policy/value/block.2."
  rm -r damaged/checkpoints/sft
  "$FORGE" whole/checkpoints/sft damaged/checkpoints/sft '"mlp":' '"mlp":1'
  not_started "$ranks" shape
  rm -r damaged
done

# The finished stage of a run that goes on: nothing of the run is touched.
cp -r whole done
flip "$(ls done/checkpoints/sft/*.h5 | head -n 1)"
cp -r done before
train 2 done --run.stages=sft,reward --sft.heldout= --restart auto
refused "done/checkpoints/sft" checksum
diff -r before done >&2 || wrong "a refused start has changed the run folder"

# Of a run that goes on: the last checkpoint is damaged, and the one before it takes its place.
train 2 stopped "${only[@]}" --sft.checkpoint_every=2 --run.stop_after=5
must_end_with 75
rm stopped/checkpoints/sft-5/manifest.json
train 1 stopped "${only[@]}" --sft.checkpoint_every=2 --restart auto
must_end_with 0
must_print "resuming after step 4"
same_run whole stopped

# A checkpoint of an unfinished stage is a model to start from; other shards are other numbers.
train 1 part "${only[@]}" --run.stop_after=2
must_end_with 75
train 2 next --run.stages=reward --reward.init=part/checkpoints/sft-2 --restart replace
must_end_with 0
train 2 next --run.stages=reward --reward.init=whole/checkpoints/sft --numerics.tensor_shards=2 --restart replace
refused "numerics.tensor_shards = 1" "2"

# No room for all of the example: none of it is left, and what was there stays. The same where a run makes it.
mkdir example
echo mine >example/mine.txt
for folder in example example/new/one; do
  if (trap '' XFSZ; ulimit -f 300; "$COLLIMATE" prepare --example $folder) >out.txt 2>err.txt; then wrong "there was room"; fi
  must_say "'$folder/"
  must_say "free space"
  [ "$(find example)" = "$(printf 'example\nexample/mine.txt')" ] || wrong "left behind: $(find example)"
done

# A full disk: the run stops; once there is room it goes on from what was written before.
mkdir disk
mount -t tmpfs -o size=1m tmpfs disk 2>/dev/null || { echo "no small disk can be mounted here: not tested"; exit 0; }
trap 'umount disk' EXIT
train 2 disk/made --run.stages=prepare
refused "disk/made/data/" "o space left"
[ -z "$(ls -A disk)" ] || wrong "left behind: $(find disk)"
for ranks in 1 2; do
  train "$ranks" disk/full "${only[@]}" --run.stop_after=2 --restart replace
  must_end_with 75
  dd if=/dev/zero of=disk/filler bs=1k status=none 2>/dev/null || true
  train "$ranks" disk/full "${only[@]}" --restart auto
  refused "disk/full" "o space left"
  [ ! -e disk/full/checkpoints/sft ] || wrong "half a checkpoint is left under its own name"
  rm disk/filler
  mount -o remount,size=16m disk
  train "$ranks" disk/full "${only[@]}" --restart auto
  must_end_with 0
  same_run whole disk/full
  rm -r disk/full
  mount -o remount,size=1m disk
done
