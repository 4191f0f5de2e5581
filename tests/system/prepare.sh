#!/usr/bin/env bash
# Makes the data of the other tests: the quickstart's, with a smaller vocabulary, and text of our own pages with a larger one.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
train 1 prepared --run.stages=prepare
must_end_with 0
[ -s prepared/data/heldout-prompts.h5 ] || wrong "no data"
run 1 prepare "$here"/../../README.md "$here"/../../*/README.md "$here"/../../src/*/README.md --train-bpe 2500 --text-window 60 --output prepared/pages.h5
must_end_with 0
must_print "vocabulary 2500"
