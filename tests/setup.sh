# Set-up shared by tests/run and inputs/quickstart/run: source it from bash, then call
#   set_up [cmake option...]   installs what is missing, configures build/
#   build [target...]          builds with all cores
# Environment: CMAKE_CXX_COMPILER_LAUNCHER and CMAKE_GENERATOR as for CMake; COLLIMATE_CMAKE_OPTIONS, more CMake
# options; COLLIMATE_SKIP_PACKAGES=1, use what is there (modules, own installations) and ask no package manager.
# Exit status: 2 where something is missing or the configuration fails, 1 where the program does not compile.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cores=$(nproc)

program_packages=(g++ cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-dev libfmt-dev
  nlohmann-json3-dev libpcre2-dev libonig-dev libutf8proc-dev libsentencepiece-dev libboost-program-options-dev zlib1g-dev)
test_packages=(libgtest-dev libgmock-dev)

say() { printf '== %s\n' "$*" >&2; }
stop() { printf 'error: %s\n' "$1" >&2; exit "${2:-2}"; }

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

missing_programs() {
  local program
  for program in cmake mpirun pkg-config; do
    command -v "$program" >/dev/null || echo "$program"
  done
  command -v "${CXX:-g++}" >/dev/null || echo "${CXX:-g++}"
  command -v ninja >/dev/null || command -v make >/dev/null || echo "ninja or make"
}

cluster_hint="On a cluster load the modules and try again, for example
  module load gcc cmake openmpi hdf5 boost
Needed: a C++20 compiler (g++ 12 or later), CMake 3.25, Open MPI, HDF5 (C), Boost.Program_options, fmt,
nlohmann-json, PCRE2, Oniguruma, utf8proc, SentencePiece, zlib, for the tests GoogleTest. CMake finds what lies in CMAKE_PREFIX_PATH,
pkg-config what lies in PKG_CONFIG_PATH."

install_packages() {
  local missing as_root=()
  missing=$(missing_packages "$@")
  missing=${missing//$'\n'/ }
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      stop "these packages are missing and this user may not install them: $missing
As root:  apt-get install --no-install-recommends $missing
To build with modules or own installations instead, set COLLIMATE_SKIP_PACKAGES=1."
    fi
  fi
  say "installing $missing"
  # Another apt may be at work on a machine that has just started: wait for its lock instead of failing.
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update </dev/null >&2 || say "apt-get update failed: trying with the package lists that are here"
  # shellcheck disable=SC2086
  "${apt[@]}" -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing </dev/null >"$root/build/packages.log" 2>&1 ||
    { tail -n 20 "$root/build/packages.log" >&2; stop "apt-get could not install the packages: $missing (all of its words: build/packages.log)"; }
}

# What mpirun needs on a workstation, as root, and in containers; what the user has set stays.
prepare_mpirun() {
  # mpirun refuses to start as root (containers, CI) unless told twice.
  export OMPI_ALLOW_RUN_AS_ROOT=${OMPI_ALLOW_RUN_AS_ROOT:-1} OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}
  # Four ranks on two cores: "not enough slots" otherwise.
  export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
  # mpirun would bind each of two ranks to one core, whatever the number of cores, and every mpirun on a machine starts
  # again at core 0; the program shares the cores among its threads itself.
  export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
  # A container's system call filter may refuse process_vm_readv; Open MPI then prints "Read -1, expected ..." at every
  # large message. Copying through shared memory costs no measurable time.
  if grep -q '^Seccomp:[[:space:]]*2' /proc/self/status 2>/dev/null; then
    export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
  fi
}

set_up() {
  mkdir -p "$root/build"
  local missing with_tests=1
  [[ " $* " != *" -DCOLLIMATE_TESTS=OFF "* ]] || with_tests=
  if [ -z "${COLLIMATE_SKIP_PACKAGES:-}" ] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_packages "${program_packages[@]}" ${with_tests:+"${test_packages[@]}"}
  fi
  missing=$(missing_programs)
  [ -z "$missing" ] || stop "not found: ${missing//$'\n'/, }
$cluster_hint"
  if [ ! -e "$root/build/CMakeCache.txt" ] && [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
  fi
  # shellcheck disable=SC2086
  cmake -S "$root" -B "$root/build" "$@" ${COLLIMATE_CMAKE_OPTIONS:-} >"$root/build/configure.log" 2>&1 || {
    sed -n '/^CMake Error/,/^-- /p' "$root/build/configure.log" >&2
    stop "CMake could not configure the build (all of its words: build/configure.log).
$cluster_hint"
  }
  prepare_mpirun
}

build() {
  say "building with $cores cores"
  cmake --build "$root/build" --parallel "$cores" ${1:+--target "$@"} >&2 || stop "the build failed" 1
}
