#!/bin/sh
# The family as GGUF, where quickstart.sh and measure.py look for it: collect.sh LAP OUT [FOLDER]
#
# OUT is what run.sh made. FOLDER (models, beside this file) gets NAME.gguf of each model in Q8_0, and the prompts;
# measure.py and card.py add what the drafters are worth and the model card.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] || [ $# -eq 3 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
LAP=$1 OUT=$2 FOLDER=${3:-$HERE/models}

mkdir -p "$FOLDER/prompts"
for kind in dense moe; do
    for model in $kind $kind-mtp $kind-dflash; do
        "$LAP" convert "$OUT/$model" --quant q8_0 -q -o "$FOLDER/$model.gguf"
    done
done
cp "$OUT"/prompts/*.ids "$FOLDER/prompts"
