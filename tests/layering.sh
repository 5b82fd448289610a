#!/usr/bin/env bash
# Checks who includes whom: an #include "..." may only follow the arrows of docs/design.md, and only reach a
# public header of another folder. Also that no C file reads the environment.
#   layering.sh [REPOSITORY]
set -u
cd "${1:-$(dirname "$0")/..}" || exit 2

# folder: what it may include besides itself
allowed() {
    case $1 in
    ir) echo ;;
    frontend | passes | codegen | runtime/weights | runtime/gguf | runtime/text | runtime/device) echo ir ;;
    runtime/synth) echo ir models runtime/gguf ;;
    runtime/convert) echo ir models runtime/gguf runtime/weights ;;
    runtime/facet) echo ir codegen ;;
    runtime/engine) echo ir frontend passes codegen models runtime/weights runtime/text runtime/device runtime/facet ;;
    runtime/serve) echo ir frontend passes codegen runtime/weights runtime/text runtime/device runtime/facet runtime/engine ;;
    runtime/cli) echo ir frontend passes codegen runtime/weights runtime/gguf runtime/synth runtime/convert runtime/text runtime/device runtime/facet runtime/engine runtime/serve ;;
    models) echo ir ;;
    tests*) echo ir frontend passes codegen models runtime/weights runtime/gguf runtime/synth runtime/convert runtime/text runtime/device runtime/facet runtime/engine ;;
    *) echo "unknown folder" ;;
    esac
}

# A header that others may not include.
private() {
    case $1 in
    *_int.h) return 0 ;;
    frontend/frontend.h) return 1 ;;
    frontend/*) return 0 ;; # one public header
    *) return 1 ;;
    esac
}

failures=0
fail() {
    echo "layering: $*"
    failures=$((failures + 1))
}

sources() {
    find ir frontend passes codegen runtime models tests \( -name '*.c' -o -name '*.h' -o -name '*.l' -o -name '*.y' \) \
        -type f | sort
}

checked=0
while IFS=: read -r file line include; do
    target=${include#*\"}
    target=${target%%\"*}
    from=$(dirname "$file")
    to=$(dirname "$target")
    checked=$((checked + 1))
    case $target in
    ../* | */../*) fail "$file:$line: relative include of $target" ;;
    esac
    # A bare name is a header of the file's own folder or generated beside it.
    [ "$to" = . ] || [ "$to" = "$from" ] && continue
    case $from:$to in
    tests*:tests/*) continue ;;                                            # helpers of tests are shared
    tests/*) [ "$(basename "$from")" = "$(basename "$to")" ] && continue ;; # tests/ir may look inside ir
    esac
    case " $(allowed "$from") " in
    *" $to "*) ! private "$target" || fail "$file:$line: $target is private to $to" ;;
    *) fail "$file:$line: $from may not include $target" ;;
    esac
done < <(sources | xargs grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' /dev/null)

while IFS=: read -r file line _; do
    fail "$file:$line: reads the environment; make it an option (runtime/cli/options.def)"
done < <(sources | xargs grep -nE '\b(secure_)?getenv[[:space:]]*\(' /dev/null)

[ $checked -gt 0 ] || fail "no include found: is this the repository?"
echo "layering: $checked includes checked, $failures problems"
[ $failures -eq 0 ]
