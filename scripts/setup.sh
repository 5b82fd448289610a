#!/usr/bin/env bash
# Installs what building and testing need, where apt can; otherwise says exactly what to run.
# Prints nothing else when all is there. Exit code 0: everything needed is installed.
set -u

# What must work | the Debian package that gives it. The last column: "tests" may be missing.
needs='
cc --version|build-essential|
cmake --version|cmake|
ninja --version|ninja-build|
flex --version|flex|
bison --version|bison|
pkg-config --version|pkg-config|
pkg-config --exists jansson|libjansson-dev|
pkg-config --exists readline|libreadline-dev|
pkg-config --exists libxxhash|libxxhash-dev|
pkg-config --exists libzip|libzip-dev|
pkg-config --exists cmocka|libcmocka-dev|
python3 -c 0|python3|
python3 -m pip --version|python3-pip|
python3 -c "import ensurepip, venv"|python3-venv|
git --version|git|
clang-format --version|clang-format|tests
'

missing_packages() { # $1: "" only what is needed, "tests" what may be missing
    while IFS='|' read -r check package kind; do
        [ -n "$check" ] && [ "$kind" = "$1" ] || continue
        eval "$check" >/dev/null 2>&1 || printf '%s ' "$package"
    done <<<"$needs"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

can_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }
}

needed=$(missing_packages "")
extra=$(missing_packages tests)
[ -n "$needed$extra" ] || exit 0

# shellcheck disable=SC2086 # lists of package names
if can_install; then
    echo "== installing: $needed$extra"
    as_root apt-get update -q || echo "setup: apt-get update failed; trying with what apt knows" >&2
    [ -z "$needed" ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $needed
    [ -z "$extra" ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $extra
    needed=$(missing_packages "")
    extra=$(missing_packages tests)
fi
if [ -n "$extra" ]; then
    echo "setup: only a test of the code's layout needs these, it will be skipped: $extra" >&2
fi
if [ -n "$needed" ]; then
    echo "setup: cannot install what is missing. On Debian or Ubuntu run, as root:" >&2
    echo "    apt-get install $needed" >&2
    echo "On another system install the packages that hold the same programs and libraries." >&2
    exit 1
fi
