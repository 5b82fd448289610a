#!/usr/bin/env python3
"""The King James Version as text to train on: text.py BIBLE DEST writes DEST/train.txt and DEST/valid.txt.

BIBLE is what the program `bible` of Debian's package bible-kjv prints:

    COLUMNS=99999 bible -l99999 gen1:1-rev22:21 > bible.txt

A chapter becomes its name, a line for each verse with the verse's number, and an empty line. Whole books are held out,
so that no chapter of theirs was seen; what they share with other books in the Bible they share here.
"""
import argparse
import hashlib
import pathlib
import re

HELD_OUT = ["Ruth", "Nehemiah", "Hosea", "Jonah", "Philippians", "2 Thessalonians", "James"]


def chapters(lines):
    """Pairs of book and text, in order."""
    out = []
    for line in lines:
        heading = re.fullmatch(r"((?:[1-3] )?[A-Z][A-Za-z ]*?) (\d+)", line)
        verse = re.fullmatch(r" +(\d+) (\S.*)", line)
        if heading:
            out.append((heading[1], [line]))
        elif verse:
            out[-1][1].append("%s %s" % (verse[1], " ".join(verse[2].split())))
        elif line.strip():
            raise SystemExit("neither a chapter's name nor a verse: %r" % line)
    return [(book, "\n".join(verses) + "\n\n") for book, verses in out]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bible", type=pathlib.Path)
    p.add_argument("dest", type=pathlib.Path)
    o = p.parse_args()
    found = chapters(o.bible.read_text(encoding="ascii").splitlines())
    missing = set(HELD_OUT) - {book for book, _ in found}
    if len(found) != 1189 or missing:
        raise SystemExit("%d chapters instead of 1189; not there: %s" % (len(found), sorted(missing)))
    o.dest.mkdir(parents=True, exist_ok=True)
    for name, is_held_out in (("train.txt", False), ("valid.txt", True)):
        text = "".join(t for book, t in found if (book in HELD_OUT) == is_held_out)
        (o.dest / name).write_text(text, encoding="ascii")
        print("%s: %d characters, sha256 %s" % (name, len(text), hashlib.sha256(text.encode()).hexdigest()))


if __name__ == "__main__":
    main()
