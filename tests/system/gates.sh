#!/usr/bin/env bash
# With learning rate 0 nothing moves, and numbers that are none stop the run.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
limit=120

# Five iterations with rates of 0: the actor stays the SFT model, bit by bit, and every KL is exactly 0.
for ranks in 1 2; do
  train "$ranks" still --ppo.actor_rate=0 --ppo.critic_rate=0 --ppo.iterations=5 --restart replace
  must_end_with 0
  s=still/summary.json
  [ "$(value $s ppo.state_hash)" = "$(value $s sft.state_hash)" ] || wrong "the actor has moved"
  [ "$(value $s state_hash)" = "$(value $s sft.state_hash)" ] || wrong "the state hash is not the actor's"
  [ "$(grep '"iteration"' still/metrics.jsonl | grep -o '"critic_hash":"[0-9a-f]*"' | sort -u | wc -l)" = 1 ] || wrong "the critic has moved"
  [ "$(grep -c '"approx_kl":0,' still/metrics.jsonl)" = 5 ] || wrong "approx_kl is not 0 in all iterations"
  [ "$(grep -c '"kl":0,' still/metrics.jsonl)" = 5 ] || wrong "the KL is not 0 in all iterations"
  [ "$(grep -c '"first_ratio":1,' still/metrics.jsonl)" = 5 ] || wrong "the first ratio is not 1"
  [ "$(grep -c '"max_abs_log_ratio":0,' still/metrics.jsonl)" = 5 ] || wrong "a ratio is not 1"
  [ "$(value $s ppo.kl)" = 0 ] || wrong "ppo.kl is $(value $s ppo.kl)"
done
# The test can fail: with a rate the hash moves.
train 2 moving --ppo.iterations=1
must_end_with 0
[ "$(value moving/summary.json ppo.state_hash)" != "$(value moving/summary.json sft.state_hash)" ] || wrong "the actor has not moved"

# Rates that are far too large: a sentence, exit code 1, and no NaN in what was written.
for ranks in 1 2; do
  for rate in "sft.rate" "reward.rate" "ppo.actor_rate" "ppo.critic_rate"; do
    train "$ranks" huge --restart replace --$rate=1e38 --sft.warmup=0 --sft.clip=0 --reward.clip=0 --ppo.actor_clip=0 --ppo.critic_clip=0
    refusal=1 refused "rate"
    [ $rate != reward.rate ] || must_say "the score of pair 0 of prompt group 80 of 'prepared/data/heldout-preference.h5' is not finite"
    ! grep -qiE 'nan|inf[^o]' huge/metrics.jsonl || wrong "metrics.jsonl holds a NaN"
    [ ! -e huge/summary.json ] || wrong "there is a summary"
  done
done
