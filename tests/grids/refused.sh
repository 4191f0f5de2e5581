#!/usr/bin/env bash
# Layouts that cannot be are refused in one sentence that names the nearest ones, before anything is written.
source "$(dirname "${BASH_SOURCE[0]}")/../system/support.sh"
export OMP_NUM_THREADS=1
none_written() { [ ! -e no ] || wrong "something was written"; }
train 4 no --grid.tensor=3 --grid.data=2
refused "3 x 2 x 1" "needs 6 ranks, but the job has 4: set grid.* to 1 x 4 x 1"
none_written
train 4 no --grid.data=3
refused "1 x 3 x 1" "needs 3 ranks, but the job has 4: start 3" "1 x 4 x 1"
none_written
train 4 no --grid.pipeline=4294967297
refused "grid.pipeline = 4294967297" "1..1048576"
none_written
train 2 no --grid.tensor=2
refused "grid.tensor = 2 does not divide numerics.tensor_shards = 1" "1 x 2 x 1"
none_written
train 3 no --grid.tensor=3 --numerics.tensor_shards=4
refused "grid.tensor = 3 does not divide numerics.tensor_shards = 4" "1 x 3 x 1"
none_written
train 3 no --grid.pipeline=3
refused "grid.pipeline = 3" "2 blocks" "at most 2 stages" "with 3 ranks 1 x 3 x 1"
none_written
train 2 no --params.zero=4
refused "params.zero = 4" "integer 0..3"
none_written
train 2 no --grid.order=tensor,data
refused "grid.order" "pipeline"
none_written
train 2 no --numerics.tensor_shards=3
refused "numerics.tensor_shards = 3 is not a power of two"
none_written
