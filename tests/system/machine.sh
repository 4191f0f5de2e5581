#!/usr/bin/env bash
# How the program is started: copies without MPI ranks, closed standard streams.
source "$(dirname "${BASH_SOURCE[0]}")/support.sh"
small=(--run.stages=sft --sft.steps=2 --sft.heldout=)

# srun without MPI, or a batch script without mpirun: said before the run folder is touched; other commands and --check go on.
for copy in 0 3; do
  code=0
  SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=$copy "$COLLIMATE" run "$here/small.ini" --run.folder=copies "${small[@]}" >out.txt 2>err.txt || code=$?
  refused "SLURM_NTASKS = 4, but MPI knows of one rank only" "--mpi=pmix" "lacks mpirun"
  [ ! -e copies ] || wrong "a copy without ranks has made the run folder"
done
SLURM_JOB_ID=7 SLURM_NTASKS=4 "$COLLIMATE" run "$here/small.ini" --run.folder=copies "${small[@]}" --check >out.txt 2>err.txt
must_print "SLURM_NTASKS = 4"
SLURM_JOB_ID=7 SLURM_NTASKS=4 "$COLLIMATE" inspect prepared/data/sft.h5 >out.txt
SLURM_NTASKS=4 train 1 whole "${small[@]}"  # mpirun -n 1 is one rank on purpose
must_end_with 0
grep -q "rank 0: [0-9]* thread" whole/log.txt || wrong "the log does not say how many threads there are"

# Closed streams: no file of the run gets their numbers, and nothing is lost.
"$COLLIMATE" run "$here/small.ini" --run.folder=closed "${small[@]}" >&- 2>&- <&- || wrong "exit code $? with closed streams"
same_run whole closed
"$COLLIMATE" prepare --example example >&- 2>&- || wrong "exit code $? of prepare with closed streams"
"$COLLIMATE" inspect example/sft.h5 >out.txt
must_print "6000 samples"
