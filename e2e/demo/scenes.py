#!/usr/bin/env python3
"""Stores 1,000 vectors in the Weaviate at URL, searches them, and checks the answer against plain arithmetic.

A scene is a sentence of three words that vary; its vector is the sum of theirs, and theirs are random but fixed.
Whatever shares words with the question is near to it. Needs nothing but Python's own library.

    scenes.py URL
"""

import itertools
import json
import math
import random
import sys
import time
import urllib.error
import urllib.request

CLASS, DIMENSION, HITS = "Scene", 64, 5
WHO = ["cat", "heron", "painter", "pilot", "robot", "sailor", "fox", "child", "baker", "whale"]
HOW = ["sleeps", "sings", "waits", "works", "dances", "reads", "swims", "hides", "laughs", "listens"]
WHERE = ["harbour", "forest", "kitchen", "station", "desert", "library", "garden", "tower", "market", "snow"]

# The engine is asked directly, whatever proxy the shell knows.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"}, method=method)
    with direct.open(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def vector(*words):
    """The sum of the words' vectors, scaled to length 1."""
    parts = []
    for word in words:
        dice = random.Random(word)
        parts.append([dice.gauss(0, 1) for _ in range(DIMENSION)])
    total = [sum(column) for column in zip(*parts)]
    length = math.sqrt(sum(x * x for x in total))
    return [x / length for x in total]


def distance(a, b):
    return 1 - sum(x * y for x, y in zip(a, b))


def stored():
    if CLASS not in [known["class"] for known in ask("GET", "/v1/schema")["classes"]]:
        return 0
    answer = ask("POST", "/v1/graphql", {"query": "{ Aggregate { %s { meta { count } } } }" % CLASS})
    return answer["data"]["Aggregate"][CLASS][0]["meta"]["count"]


def store(scenes):
    ask("POST", "/v1/schema", {
        "class": CLASS,
        "vectorizer": "none",
        "vectorIndexConfig": {"distance": "cosine", "ef": 256},
        "properties": [{"name": "text", "dataType": ["text"]}],
    })
    items = iter(scenes.items())
    while batch := list(itertools.islice(items, 250)):
        objects = [{"class": CLASS, "properties": {"text": text}, "vector": v} for text, v in batch]
        for item in ask("POST", "/v1/batch/objects", {"objects": objects}):
            if item["result"].get("errors"):
                sys.exit(f"Weaviate refused a vector: {item['result']['errors']}")


def search(question):
    query = "{ Get { %s(nearVector: {vector: %s}, limit: %d) { text _additional { distance } } } }"
    answer = ask("POST", "/v1/graphql", {"query": query % (CLASS, json.dumps(question), HITS)})
    if answer.get("errors"):
        sys.exit(f"Weaviate refused the search: {answer['errors']}")
    return [(hit["text"], hit["_additional"]["distance"]) for hit in answer["data"]["Get"][CLASS]]


def main():
    scenes = {f"a {a} {b} in the {c}": vector(a, b, c) for a, b, c in itertools.product(WHO, HOW, WHERE)}
    if before := stored():
        print(f"its disk still has the {before} vectors of the last time; they are replaced")
        ask("DELETE", f"/v1/schema/{CLASS}")
    begun = time.monotonic()
    store(scenes)
    print(f"stored {stored()} vectors of {DIMENSION} dimensions in {time.monotonic() - begun:.1f} s")

    words = ("sailor", "sings", "harbour")
    question = vector(*words)
    begun = time.monotonic()
    hits = search(question)
    print(f"nearest to ({', '.join(words)}), answered in {1000 * (time.monotonic() - begun):.0f} ms:")
    for text, far in hits:
        print(f"    {max(far, 0):.3f}  {text}")

    right = sorted(scenes, key=lambda text: distance(question, scenes[text]))[:HITS]
    if [text for text, _ in hits] != right:
        sys.exit(f"wrong: by plain arithmetic over all of them the nearest are {right}")
    print("right: the same by plain arithmetic over all of them")


if len(sys.argv) != 2:
    sys.exit(__doc__)
URL = sys.argv[1].rstrip("/")
try:
    main()
except (urllib.error.URLError, OSError) as error:
    detail = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
    sys.exit(f"{URL}: {error} {detail}")
