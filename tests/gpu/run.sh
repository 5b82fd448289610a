#!/usr/bin/env bash
# All checks that need a GPU, from a built tree; besides it only Python is needed.
#   tests/gpu/run.sh BUILD [--model FILE] [--sanitize] [--only PATTERN]
# One line a check: what, passed or FAILED, seconds; then a summary. What a check printed is in BUILD/gpu-checks/NAME.log,
# its last lines are shown when it fails. Exit code 1 when anything failed.
# --model: Gemma 3 270M Q4_K_M, else where scripts/fetch_model.py puts it; without, what needs it is skipped.
# --sanitize: instead of the checks, small models under compute-sanitizer (memcheck, racecheck, initcheck, synccheck).
# --only: checks whose whole name is matched by the extended regular expression, as model-.* or racecheck-(odd|moe).
set -u
repo=$(cd "$(dirname "$0")/../.." && pwd)
if [ $# -lt 1 ] || [ ! -x "$1/lap" ]; then
    sed -n '3,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
build=$(cd "$1" && pwd)
logs=$build/gpu-checks cache=$build/gpu-checks/kernels fixtures=$build/fixtures/gemma4
feed=$build/tests/codegen/feed
model=$HOME/.cache/lapidary/gemma-3-270m-q4_k_m.gguf sanitize=no only='.*'
passed=0 failed=0 skipped=0
shift
while [ $# -gt 0 ]; do
    case $1 in
    --model) model=${2:?} && shift ;;
    --sanitize) sanitize=yes ;;
    --only) only=${2:?} && shift ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
mkdir -p "$logs"

# check NAME COMMAND..: exit code 77 is a check that this machine cannot make.
check() {
    local name=$1 log=$logs/$1.log start=$SECONDS code=0
    [[ $name =~ ^($only)$ ]] || return 0
    shift
    "$@" >"$log" 2>&1 </dev/null || code=$?
    case $code in
    0) passed=$((passed + 1)) && printf '%-24s passed   %4d s\n' "$name" $((SECONDS - start)) ;;
    77) skipped=$((skipped + 1)) && printf '%-24s skipped  %s\n' "$name" "$(tail -n 1 "$log")" ;;
    *)
        failed=$((failed + 1))
        printf '%-24s FAILED   %4d s, exit code %d\n' "$name" $((SECONDS - start)) $code
        tail -n 20 "$log" | sed 's/^/    /'
        ;;
    esac
}

summary() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}

# ==== The programs that check kernels and the device layer, and whole models ====

programs() {
    check device "$build/tests/device/test_device_gpu"
    check matmul "$build/tests/kernels/matmul_gpu" check
    check prefill "$build/tests/kernels/prefill_gpu" check
    check router "$build/tests/kernels/router_gpu" check
    check attention "$build/tests/attention/attention_gpu" check
    check attention-types "$build/tests/attention/attention_gpu" pairs
    check sparse "$build/tests/attention/sparse_gpu" check
    check sampling "$build/tests/sampling/sampling_gpu" check
}

# Logits whole, in calls of each number of rows to 16 (the same bytes) and of 20, greedy tokens, rings.
models() {
    local kind
    for kind in dense moe ple odd packed tiny experts variants sparse sparse_packed; do
        check "model-$kind" python3 "$repo/tests/codegen/gpu_models_test.py" "$build/lap" "$feed" "$cache" "$fixtures" \
            "$kind"
    done
    for kind in dense moe ple odd; do
        check "sequences-$kind" "$build/tests/engine/sequences_test" "$fixtures/$kind/model.gguf"
    done
    check tune "$build/tests/engine/tune_test" "$cache/tune"
    check times "$build/tests/engine/times_test" "$fixtures/moe/model.gguf"
    check chunk "$build/tests/engine/chunk_test" "$fixtures/dense/model.gguf"
    check rates "$build/tests/engine/rates_test" "$fixtures/dense/model.gguf" "$cache/rates"
    check picks "$build/tests/engine/pick_test" "$fixtures/dense/model.gguf"
    check drafters "$build/tests/engine/drafters_test" "$fixtures" gpu
    for kind in dense ple; do
        check "together-$kind" "$build/tests/engine/together_test" "$fixtures/$kind/model.gguf" \
            "$fixtures/assistant_$kind/model.gguf" "$cache" 0 gpu
    done
    check together-dflash "$build/tests/engine/together_test" "$fixtures/dense/model.gguf" "$fixtures/dflash" "$cache" 0 gpu
    check drafts python3 "$repo/tests/cli/draft_test.py" "$build/lap" "$fixtures" 50 --device gpu
    check faults python3 "$repo/tests/faults/faults_test.py" "$build/lap" --gpu
    check facet python3 "$repo/tests/cli/facet_test.py" "$build/lap" "$cache"
}

# The trained family: what its drafters guess, and that they change nothing. How fast they are is no check.
family() {
    local what words log=$logs/family-speed.log
    for what in "acceptance --prompts 16" "far --prompts 16" "lossless --prompts 50 --new 200" "speed --prompts 2"; do
        read -ra words <<<"$what"
        check "family-${words[0]}" python3 -B "$repo/tests/small/trained_test.py" "$build/lap" "${words[@]}" --device gpu \
            --kernel-cache "$cache"
    done
    [ ! -e "$log" ] || grep 'tokens/s' "$log"
}

# Mean KL divergence of the logits in each storage type, over 2,048 positions: the tables are in storage-NAME.log. The real
# model's limit is three times the worst that was found (docs/performance/correctness.md), 1.62e-5 of q4_k in calls of many rows.
storage() {
    local kind options=(--kernel-cache "$cache")
    for kind in dense moe ple odd; do
        check "storage-$kind" "$build/tests/engine/storage_kl" "${options[@]}" "$fixtures/$kind/model.gguf" "$logs"
    done
    if [ -e "$model" ]; then
        check storage-real "$build/tests/engine/storage_kl" "${options[@]}" --limit 5e-5 --text \
            "$repo/tests/data/constitution.txt" "$model" "$logs"
    fi
}

# Perplexity, logits along a text, greedy tokens: the table is in real-model.log.
real_model() {
    check real-model python3 "$repo/tests/engine/real_model.py" "$build/lap" "$build/tests/engine/real_gpu" "$cache" \
        "$model" "$repo/tests/data/constitution.txt"
}

# ==== compute-sanitizer ====

# The first tokens of the recorded prompt: one call of 24 rows, prefill, then decode of 3 and 1 rows. In graphs, but for
# racecheck, which is told of one kernel at a time.
sanitize_model() {
    local kind=$1 tool=$2 ids=$logs/$1.ids out=$logs/$1.f32
    local options=(--tool "$tool" --error-exitcode 1 --print-limit 20)
    local model=(--device gpu --kernel-cache "$cache" --chunk 24 --context 64)
    [ "$tool" = racecheck ] && model+=(--check-launches yes)
    python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["prompt_tokens"][:28])' \
        "$fixtures/$kind/golden.json" >"$ids"
    check "$tool-$kind" compute-sanitizer "${options[@]}" "$feed" "${model[@]}" "$fixtures/$kind/model.gguf" "$ids" \
        "24+3+1=$out"
}

sanitize() {
    local tool kind
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not installed"
        exit 77
    fi
    for tool in memcheck initcheck racecheck synccheck; do
        for kind in odd moe ple; do
            sanitize_model "$kind" "$tool"
        done
    done
}

python3 "$repo/tests/fixtures/unpack.py" "$repo/tests/fixtures" "$build/fixtures" >/dev/null || exit 1
"$build/lap" doctor | grep -i 'gpu\|driver\|NVRTC'
if [ $sanitize = yes ]; then
    sanitize
else
    programs
    models
    family
    storage
    real_model
fi
summary
