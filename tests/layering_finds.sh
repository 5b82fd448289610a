#!/usr/bin/env bash
# layering.sh must find what it is there for: each wrong line below, planted in an empty tree, is reported.
set -u
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

plant() { # file, line, what the report must contain ("" for no report)
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/{ir,frontend,passes,codegen,models,tests/{cli,frontend},runtime/{weights,text,device,facet,engine,cli}}
    printf '#include "ir/base.h"\n%s\n' "$2" >"$tree/$1"
    report=$("$here/layering.sh" "$tree")
    code=$?
    if [ -n "$3" ]; then
        case $report in
        *"$1:2: "*"$3"*) [ $code -ne 0 ] && return ;;
        esac
    elif [ $code -eq 0 ]; then
        return
    fi
    echo "FAILED: $1 with $2: exit code $code, report: $report"
    failures=$((failures + 1))
}

plant ir/x.c '#include "passes/passes.h"' 'ir may not include passes/passes.h'
plant passes/x.c '#include "frontend/frontend.h"' 'passes may not include'
plant frontend/x.c '#include "runtime/text/text.h"' 'frontend may not include'
plant runtime/weights/x.c '#include "runtime/text/text.h"' 'runtime/weights may not include'
plant runtime/text/x.h '#include "runtime/engine/session.h"' 'runtime/text may not include'
plant runtime/facet/x.c '#include "runtime/device/compile.h"' 'runtime/facet may not include'
plant runtime/device/x.c '#include "codegen/codegen.h"' 'runtime/device may not include'
plant runtime/engine/x.c '#include "runtime/cli/cli.h"' 'runtime/engine may not include'
plant runtime/engine/x.c '#include "runtime/device/device_int.h"' 'is private to runtime/device'
plant codegen/x.c '#include "runtime/facet/facet.h"' 'codegen may not include'
plant runtime/engine/x.c '#  include "ir/eval_int.h"' 'is private to ir'
plant runtime/cli/x.c '#include "frontend/lower.h"' 'is private to frontend'
plant ir/x.c '#include "../ir/base.h"' 'relative include'
plant passes/x.c 'int a = getenv("A") != 0;' 'reads the environment'
plant tests/cli/x.c '#include "frontend/lower.h"' 'is private to frontend'
plant tests/frontend/x.c '#include "frontend/lower.h"' ''
plant runtime/cli/x.h '#include "runtime/engine/session.h"' ''
plant frontend/x.y '#include "frontend/lower.h"' ''
plant ir/x.c '#include "eval_int.h"' ''
[ $failures -eq 0 ] && echo "layering.sh finds what it should"
exit $failures
