#!/usr/bin/env bash
# Proves that every rule of tests/layering/check can fail: a small correct tree passes, and each bad file added to it
# alone is refused with the sentence meant for it.
set -euo pipefail
check=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/check
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cd "$tree"
failures=0

write() { mkdir -p "$(dirname "$1")" && printf '%b\n' "$2" >"$1"; }

write CMakeLists.txt 'project(x)'
write include/collimate/base/error.hpp '#pragma once\n#include <string>'
write include/collimate/model/block.hpp '#include "collimate/params/store.hpp"\n// wraps MPI_Init, cudaMalloc'
write src/engine/engine.cpp '#include "collimate/engine/engine.hpp"\n#include "collimate/model/block.hpp"\n#include "engine/schedule.hpp"'
write src/io/hdf5.cpp '#include <hdf5.h>\n#include "collimate/comm/world.hpp"'
write src/rlhf/ppo.cpp '#include "collimate/data/cursor.hpp"\n#include "collimate/kernels/norm.hpp"\n#include "collimate/optim/adamw.hpp"'
write build/bin/junk 'ignored'
if ! "$check" . ; then
  echo "the correct tree was refused"
  failures=1
fi

refused() { # SENTENCE FILE CONTENT
  write "$2" "$3"
  local said
  if said=$("$check" .); then
    echo "not refused: $2 ($1)"
    failures=1
  elif [[ $said != *"${2##*/}"*"$1"* ]] || [ "$(wc -l <<<"$said")" != 1 ]; then
    echo "refused with another sentence than '$1': $said"
    failures=1
  fi
  rm "$2"
  find . -type d -empty -delete
}

not_allowed() { # ROOM OTHER
  refused "$1 must not see $2" "src/$1/bad.cpp" "#include \"collimate/$2/x.hpp\""
}

for pair in base:device device:kernels kernels:comm comm:kernels comm:collectives collectives:params params:model data:device data:params \
  optim:model io:model io:data engine:optim engine:rlhf engine:data model:engine optim:io rlhf:app; do
  not_allowed "${pair%:*}" "${pair#*:}"
done
refused 'base must not see comm' include/collimate/base/bad.hpp '\n  # include "collimate/comm/world.hpp"'
refused 'is no room' src/extra/bad.cpp 'int x;'
refused 'relative path' src/model/bad.cpp '#include "../engine/schedule.hpp"'
refused 'private header of engine' src/rlhf/bad.cpp '#include "engine/schedule.hpp"'
refused 'not public' include/collimate/engine/bad.hpp '#include "engine/schedule.hpp"'
refused 'conditional' src/base/bad.cpp '#ifdef __AVX2__'
refused 'conditional' include/collimate/base/bad.hpp ' # if 1'
refused 'conditional' src/kernels/cuda/bad.cu '#ifndef X'
for header in mpi.h cuda_runtime.h nccl.h cublas_v2.h hdf5.h H5Cpp.h dnnl.h cblas.h boost/version.hpp nlohmann/json.hpp; do
  refused 'includes a foreign library' include/collimate/comm/bad.hpp "#include <$header>"
done
for name in MPI_Comm cudaStream_t ncclComm_t H5Fopen hid_t boost::any nlohmann::json; do
  refused 'names a foreign library' include/collimate/comm/bad.hpp "$name x;"
done
refused 'switch over DType has a default' src/io/bad.cpp 'switch (dtype) {\n  case DType::f32: return 4;\n  default: return 8;\n}'
write src/io/good.cpp 'switch (dtype) {\n  case DType::f32: return 4;\n}\nswitch (c) {\n  case 1: return 4;\n  default: return 8;\n}'
"$check" . || { echo "a default that is not over DType was refused"; failures=1; }
rm src/io/good.cpp
refused 'unfinished' src/base/bad.cpp '// TO''DO: later'
refused 'unfinished' tests/base/bad.cpp '// FIX''ME'
refused '501 lines' src/base/bad.cpp "$(printf 'x\\n%.0s' {1..500})"
refused 'lines of CMake' tests/CMakeLists.txt "$(printf 'x\\n%.0s' {1..400})"
refused 'top level' scripts 'x'
exit $failures
