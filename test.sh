#!/usr/bin/env bash
# Builds and runs all tests.
#   ./test.sh [--asan] [CTEST OPTION...]
# --asan: afterwards also under AddressSanitizer and UndefinedBehaviorSanitizer, without the slow tests.
# Tests that need the real model or NVRTC are listed as skipped where it is not there (scripts/fetch_model.py,
# scripts/fetch_nvrtc.py).
set -eu
cd "$(dirname "$0")"

asan=no
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 0
fi
if [ "${1:-}" = --asan ]; then
    asan=yes
    shift
fi

run_preset() { # preset, then options of ctest
    local preset=$1 log=build/$1.log
    shift
    mkdir -p build
    cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" && return 1; }
    cmake --build --preset "$preset"
    ctest --preset "$preset" -j 2 "$@"
}

run_preset default "$@"
if [ $asan = yes ]; then
    run_preset asan -LE slow "$@"
fi
