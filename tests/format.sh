#!/usr/bin/env bash
# All C files are as clang-format lays them out (.clang-format). Skipped (77) without clang-format.
set -u
cd "$(dirname "$0")/.." || exit 2
if ! command -v clang-format >/dev/null; then
    echo "format: clang-format is not installed: skipped"
    exit 77
fi
mapfile -t files < <(find ir frontend passes codegen runtime models tests \( -name '*.c' -o -name '*.h' \) -type f | sort)
[ ${#files[@]} -gt 0 ] || { echo "format: no files found" && exit 1; }
clang-format --dry-run -Werror "${files[@]}" || { echo "format: run clang-format -i on these files" && exit 1; }
echo "format: ${#files[@]} files are in order"
