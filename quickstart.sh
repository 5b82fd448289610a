#!/usr/bin/env bash
# From a fresh clone to generated text: installs what is missing, builds, fetches the model, runs it.
#   ./quickstart.sh [--offline]
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<'END'
Usage: ./quickstart.sh [--offline]

Installs what is missing (with apt, where it can), builds build/release/lap, fetches Gemma 3 270M
(253 MB, once, into ~/.cache/lapidary) and lets it continue a sentence.

  --offline  fetch nothing: use the model if it is already there, and the small family of examples/small/models, a
             model with two drafters
  --help     this
END
}

offline=no
for arg in "$@"; do
    case $arg in
    --offline) offline=yes ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

if [ $offline = no ]; then
    scripts/setup.sh
fi

echo "== building (build/release)"
mkdir -p build
cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log && exit 1; }
cmake --build --preset release --target lap

lap=build/release/lap
model=$HOME/.cache/lapidary/gemma-3-270m-q4_k_m.gguf
small=examples/small/models
there=yes
check=
[ $offline = no ] || check=--check
python3 scripts/fetch_model.py $check || there=no
if [ $there = yes ]; then
    echo "== Gemma 3 270M continues \"The three primary colors are\""
    $lap run "$model" -p "The three primary colors are" -n 64 --echo
    echo "== Now try: $lap run $model -p \"Once upon a time\"      (lap --help shows everything)"
else
    echo "== Gemma 3 270M is not there. Run ./quickstart.sh again to get it."
fi
if [ $there = no ] || [ $offline = yes ]; then
    echo "== A small model, trained on the King James Version alone, and drafters that guess what it writes. It sounds like"
    echo "   that and makes no sense; the last line of each run says how often guesses were right (examples/small)."
    text="And it came to pass in those days, that"
    for draft in mtp dflash; do
        echo "== $draft"
        $lap run $small/dense.gguf --draft $small/dense-$draft.gguf --draft-fixed -p "$text" --temp 0.5 -n 64 --echo
    done
    echo "== Now try: $lap bench $small/dense.gguf --draft-method dflash --tokens-file $small/prompts/0064-00.ids"
fi
