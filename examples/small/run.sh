#!/bin/sh
# Trains the whole family: run.sh DATA OUT [OPTIONS OF train.py]
#
# DATA has train.txt and valid.txt of text.py. The two targets with their drafters are trained beside one another: one
# alone does not fill a large GPU. Seconds for each part; the spans take what they take.
set -eu
TARGET=60 MTP=45 DFLASH=80
HERE=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-python3}
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
DATA=$1 OUT=$2
shift 2

family() {
    kind=$1
    shift
    "$PYTHON" "$HERE/train.py" target --seconds $TARGET "$@"
    "$PYTHON" "$HERE/train.py" spans "$@"
    "$PYTHON" "$HERE/train.py" mtp --seconds $MTP "$@"
    "$PYTHON" "$HERE/train.py" dflash --seconds $DFLASH "$@"
}

mkdir -p "$OUT"
"$PYTHON" "$HERE/tokenizer.py" "$DATA"
"$PYTHON" "$HERE/prompts.py" "$DATA" "$OUT"
jobs=
for kind in dense moe; do
    (family $kind --kind $kind --data "$DATA" --out "$OUT" "$@") >"$OUT/$kind.log" 2>&1 &
    jobs="$jobs $!"
done
failed=0
for job in $jobs; do
    wait "$job" || failed=1
done
cat "$OUT/dense.log" "$OUT/moe.log"
exit $failed
