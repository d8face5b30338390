#!/usr/bin/env python3
"""Makes Manyhead's sentiment demo out of the ground truth files of VADER (Hutto & Gilbert, 2014).

    prepare.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds the four `*_GroundTruth.txt` files (uid TAB score TAB text). OUT_DIR receives, for each of the
domains tweets, films, products and news, a train, a dev and a test file in the canonical format (uid TAB label TAB
text, no header, UTF-8). The same input gives the same bytes on every machine: all choices hang on a hash of the uid.
"""
import hashlib
import html
import math
import re
import sys
from collections import Counter
from pathlib import Path

SOURCES = {"tweets": "tweets", "films": "movieReviewSnippets", "products": "amazonReviewSnippets",
           "news": "nytEditorialSnippets"}
SHARE = 0.1  # of the documents, for test and for dev each
MOST_ROWS = 500  # in a dev or test file
MOST_BYTES = 1_580_000  # all TSV files together; with the files beside them the folder stays below 1.6 MB
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|\w+);")


def part_of(document):
    """train, dev or test, by the first 8 bytes of the hash, so that a document is never torn apart."""
    place = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
    return "test" if place < SHARE else "dev" if place < 2 * SHARE else "train"


def order_of(row):
    """The place of a row in the random order: the bytes of the hash that have no say in `part_of`."""
    return hashlib.sha256(row[0].encode()).digest()[8:]


def clean(text):
    """Undoes HTML entities (also double ones: `&amp;#39;`) and makes each run of white space one space."""
    while (plain := ENTITY.sub(lambda entity: html.unescape(entity[0]), text)) != text:
        text = plain
    return " ".join(text.split())


def likeness(text):
    """Letters and digits in lower case: 'YAY! Good!!' and 'Yay. Good.' are the same text to a leak check."""
    return "".join(sign for sign in text.casefold() if sign.isalnum()) or text


def read(path, domain):
    """The rows (uid, label, text) of a source file by part; what cannot be read is reported and counted."""
    parts, seen, bad = {"train": [], "dev": [], "test": []}, set(), 0
    for number, raw in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        try:  # The sources are UTF-8; should a line be older, it is from Windows like their README.
            line = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            line = raw.decode("cp1252", "replace")
            print(f"{path.name}:{number}: not UTF-8, read as Windows-1252", file=sys.stderr)
        uid, score, text = (line.split("\t", 2) + ["", ""])[:3]
        uid, text = f"{domain}:{uid.strip()}", clean(text)
        try:
            label = float(score)
        except ValueError:
            label = math.nan
        fault = ("the score is no number from -4 to 4" if not -4 <= label <= 4 else "the text is empty" if not text
                 else f"the uid {uid} is there twice" if uid in seen else None)
        if fault:
            print(f"{path.name}:{number}: left out: {fault}", file=sys.stderr)
            bad += 1
            continue
        seen.add(uid)
        # `products:12_3` is sentence 3 of document `products:12`; `+ 0.0` makes a zero of a minus zero.
        parts[part_of(uid.split("_")[0])].append((uid, round(label, 4) + 0.0, text))
    return parts, bad


def without(rows, others):
    """The rows whose text is not among `others`, and how many are gone: (by the same letters, exactly the same)."""
    exact, alike = {row[2] for row in others}, {likeness(row[2]) for row in others}
    kept = [row for row in rows if likeness(row[2]) not in alike]
    return kept, (len(rows) - len(kept), sum(row[2] in exact for row in rows))


def line_of(row):
    """A row as it is written."""
    return "{}\t{}\t{}\n".format(*row).encode()


def main(source, out):
    files, train, bytes_left = {}, [], MOST_BYTES
    for domain, name in SOURCES.items():
        parts, bad = read(source / f"{name}_GroundTruth.txt", domain)
        for rows in parts.values():
            rows.sort(key=order_of)
        test = parts["test"][:MOST_ROWS]
        dev, dev_gone = without(parts["dev"], test)
        dev = dev[:MOST_ROWS]
        rows, train_gone = without(parts["train"], test + dev)
        files |= {(domain, "train"): [], (domain, "dev"): dev, (domain, "test"): test}
        train += [(row, domain) for row in rows]
        bytes_left -= sum(len(line_of(row)) for row in test + dev)
        print("{}: unreadable {}; source train {}, dev {}, test {}".format(domain, bad, *map(len, parts.values())),
              "; left out as texts of another part: train {} ({} exactly), dev {} ({})".format(*train_gone, *dev_gone),
              sep="", file=sys.stderr)

    # One random order over all domains: each gives the same share of its train rows, the natural mix is kept.
    for row, domain in sorted(train, key=lambda item: order_of(item[0])):
        bytes_left -= len(line_of(row))
        if bytes_left < 0:
            break
        files[domain, "train"].append(row)

    out.mkdir(parents=True, exist_ok=True)
    line = "{:<20} {:>6} {:>9} {:>8} {:>7} {:>6}".format
    print(line("file", "rows", "bytes", "words", "mean", "std"), file=sys.stderr)
    total = Counter()
    for (domain, part), rows in files.items():
        name, content, labels = f"{domain}_{part}.tsv", b"".join(map(line_of, rows)), [row[1] for row in rows]
        (out / name).write_bytes(content)
        mean = sum(labels) / max(len(labels), 1)
        deviation = math.sqrt(sum((label - mean) ** 2 for label in labels) / max(len(labels), 1))
        counts = Counter(rows=len(rows), bytes=len(content), words=sum(len(row[2].split()) for row in rows))
        print(line(name, *counts.values(), f"{mean:.3f}", f"{deviation:.3f}"), file=sys.stderr)
        total += counts
    print(line("total", *total.values(), "", ""), file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
