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

  --offline  fetch nothing: use the model if it is already there, and the small trained one with its drafters
             (examples/small/models) where its files are; else a tiny one with random weights
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
shown=no
check=
[ $offline = no ] || check=--check
if python3 scripts/fetch_model.py $check; then
    echo "== Gemma 3 270M continues \"The three primary colors are\""
    $lap run "$model" -p "The three primary colors are" -n 64 --echo
    echo "== Now try: $lap run $model -p \"Once upon a time\"      (lap --help shows everything)"
    shown=yes
fi
if [ $shown = no ] || [ $offline = yes ]; then
    for draft in mtp dflash; do
        if [ ! -f $small/dense.gguf ] || [ ! -f $small/dense-$draft.gguf ]; then
            continue
        fi
        echo "== A small trained model (examples/small) and its drafter, $draft; the last line says how often it guessed right"
        $lap run $small/dense.gguf --draft $small/dense-$draft.gguf -p "And it came to pass in those days, that" -n 64 --echo
        shown=yes
    done
fi
if [ $shown = no ]; then
    echo "== The model cannot be had now. A tiny one with random weights takes its place: every part of the"
    echo "   program runs, but the text is noise. Run ./quickstart.sh again to get the real one."
    python3 examples/tiny/make_tiny.py build/tiny.gguf
    $lap run build/tiny.gguf -p "The three primary colors are" -n 64 --echo
fi
