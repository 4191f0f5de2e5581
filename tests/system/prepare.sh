#!/usr/bin/env bash
# Makes the data of the other tests: the quickstart's, with a smaller vocabulary.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
train 1 prepared --run.stages=prepare
must_end_with 0
[ -s prepared/data/heldout-prompts.h5 ] || wrong "no data"
