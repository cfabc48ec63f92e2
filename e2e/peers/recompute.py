#!/usr/bin/env python3
"""Recomputes the ledger's golden vectors without any of Berth's code: Python's standard library only.

    recompute.py docs/ledger-vectors.json

Every vector gives what a caller said (`draft`, `seal`) and what Berth made of it. This program makes it anew by
docs/ledger.md and compares: cleaned strings, canonical text, digest of the details, hash, and the chain's links.
Exit code 0 if all agree; 1 and one line for each difference if not.
"""
import hashlib
import json
import sys

GENESIS = "0" * 64
MAX_INTEGER = 2**53 - 1
MAX_DETAILS, MAX_REASON, MAX_ACTOR = 16 * 1024, 64, 256
STANDS_ALONE = ("operation-start", "operation-finish")


def hidden(c):
    n = ord(c)
    return (n < 0x20 or 0x7F <= n <= 0x9F or 0x200B <= n <= 0x200F or 0x2028 <= n <= 0x202E
            or 0x2066 <= n <= 0x2069 or n == 0xFEFF)


def visible(text, limit=None):
    """Control characters as six visible ones; then, if too long, cut with an ellipsis in the last place."""
    cut = limit is not None and len(text) > limit
    kept = [f"\\u{ord(c):04x}" if hidden(c) else c for c in (text[:limit] if cut else text)]
    return "".join(kept)[:-1] + "…" if cut else "".join(kept)


def plain(value):
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_INTEGER else str(value)
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {visible(key): plain(item) for key, item in value.items()}


def canonical(value):
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def seal(draft, seal, previous):
    details = canonical(draft["details"])
    if len(details.encode()) > MAX_DETAILS:
        details = canonical({"omitted": {"bytes": len(details.encode()), "sha256": sha256(details)}})
    chained = draft["kind"] not in STANDS_ALONE
    record = canonical({
        "v": 1, "kind": draft["kind"], "cluster": seal["cluster"], "uid": draft["uid"],
        "seq": previous["sequence"] + 1 if chained else 0, "epoch": seal["epoch"], "at": seal["at"],
        "from": draft["from"], "to": draft["to"], "reason": visible(draft["reason"], MAX_REASON),
        "actor": visible(draft["actor"], MAX_ACTOR), "generation": draft["generation"],
        "operation": draft["operation"], "prev": previous["hash"] if chained else GENESIS,
        "details": sha256(details),
    })
    return {"record": record, "hash": sha256(record), "details": details}


def main(path):
    with open(path, encoding="utf-8") as file:
        # Numbers that are no integers stay the text that they were written as.
        vectors = json.load(file, parse_float=str)["vectors"]
    heads, wrong = {}, []
    for vector in vectors:
        uid, kind = vector["draft"]["uid"], vector["draft"]["kind"]
        previous = vector.get("previous") or heads.get(uid, {"sequence": 0, "hash": GENESIS})
        made = seal(vector["draft"], vector["seal"], previous)
        for field, text in made.items():
            if vector[field] != text:
                wrong.append(f"{vector['name']}: {field} is {text!r} here, {vector[field]!r} there")
        if kind not in STANDS_ALONE:
            heads[uid] = {"sequence": previous["sequence"] + 1, "hash": made["hash"]}
    print("\n".join(wrong) or f"{len(vectors)} vectors agree")
    return 1 if wrong or not vectors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
