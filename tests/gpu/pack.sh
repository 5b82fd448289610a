#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs of a build, for a machine with a GPU and nothing to build with: programs without
# debug information, and the libraries that are not part of every Linux.
#   tests/gpu/pack.sh BUILD OUT.tar.xz
# There, beside a checkout: tar xJf OUT.tar.xz; LD_LIBRARY_PATH=$PWD/build/lib tests/gpu/run.sh build
set -eu
if [ $# -ne 2 ] || [ ! -x "$1/lap" ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd) build=$(cd "$1" && pwd) out=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/build/lib"
for program in lap $(grep -o 'build/tests/[a-z_/]*' "$here/run.sh" | sort -u | sed s,build/,,); do
    mkdir -p "$folder/build/$(dirname "$program")"
    strip -o "$folder/build/$program" "$build/$program"
    ldd "$build/$program" | awk '/=> \// {print $3}' >>"$folder/libraries"
done
sort -u "$folder/libraries" | grep -v '/lib\(c\|m\|dl\|pthread\|gcc_s\|stdc++\)\.so' |
    xargs -I{} cp -L {} "$folder/build/lib/"
tar cf - -C "$folder" build | xz -T0 -3 >"$out"
ls -l "$out"
