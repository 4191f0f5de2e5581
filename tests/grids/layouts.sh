#!/usr/bin/env bash
# layouts.sh "LAYOUT..." OPTION...: all three stages on one rank, then on every layout, which must give the same bytes.
# STRICT=third|all: the layouts on the strict device, a drawn third of them or all; STRICT_SEED repeats a draw that was printed.
# A LAYOUT is tensor x data x pipeline and what else changes no number: 2x1x4:zero=3:recompute=full:every=2:order=data,tensor,pipeline:threads=2
source "$(dirname "${BASH_SOURCE[0]}")/../system/support.sh"
layouts=$1
shift
common=(--sft.steps=3 --reward.steps=3 --ppo.iterations=3 --evaluate.max_new=4 "$@")

# on_layout FOLDER LAYOUT OPTION...
on_layout() {
  local folder=$1 layout=$2 grid word options=()
  shift 2
  grid=${layout%%:*}
  IFS=x read -r tensor data pipeline <<<"$grid"
  options=(--grid.tensor="$tensor" --grid.data="$data" --grid.pipeline="$pipeline")
  export OMP_NUM_THREADS=1
  for word in ${layout//:/ }; do
    case $word in
      zero=*) options+=(--params.zero="${word#*=}") ;;
      recompute=*) options+=(--engine.recompute="${word#*=}") ;;
      every=*) options+=(--engine.recompute_every="${word#*=}") ;;
      order=*) options+=(--grid.order="${word#*=}") ;;
      values=*) place=${word#*=} options+=(--placement.values="${place/@/:}") ;;  # host@0.5 is host:0.5
      state=*) place=${word#*=} options+=(--placement.moments="${place/@/:}" --placement.gradients="${place/@/:}") ;;
      group=*) options+=(--engine.group="${word#*=}") ;;
      rollouts=*) options+=(--placement.rollouts="${word#*=}") ;;
      slots=*) options+=(--ppo.slots="${word#*=}") ;;
      threads=*) export OMP_NUM_THREADS=${word#*=} ;;
      "$grid") ;;
      *) wrong "what is $word?" ;;
    esac
  done
  train $((tensor * data * pipeline)) "$folder" "${options[@]}" "$@"
}

seed=${STRICT_SEED:-$((RANDOM * 32768 + RANDOM))}
[ -z "${STRICT:-}" ] || echo "on the strict device, STRICT_SEED=$seed"
RANDOM=$seed
on_layout one 1x1x1 "${common[@]}"
must_end_with 0 one
[ -z "${STRICT:-}" ] || layouts="1x1x1 $layouts"
ran=0
for layout in $layouts; do
  draw=$RANDOM
  if [ "${STRICT:-}" = third ] && [ $((draw % 3)) != 0 ] && [ "$layout" != 1x1x1 ]; then continue; fi
  orders=(random copies_first kernels_first late)
  [ -z "${STRICT:-}" ] || export COLLIMATE_DEVICE=strict:$draw:${orders[draw / 3 % 4]}
  on_layout other "$layout" --restart=replace "${common[@]}"
  must_end_with 0 "$layout"
  same_run one other
  echo "$layout: the bytes of one rank ${COLLIMATE_DEVICE:-}"
  ran=$((ran + 1))
done
[ $ran -gt 0 ] || wrong "no layout was run"
