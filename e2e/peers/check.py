#!/usr/bin/env python3
"""Checks a ledger without any of Berth's code: Python's standard library, and `psql` and `kubectl` where they are asked.

    check.py --database-url URL --spool DIR... --kubectl [--settled] [--json]
    check.py --dump DIR [--settled] [--json]

Written from docs/ledger.md and docs/data-model.md, so that what `berth verify` believes is believed by two. Nothing that
can be computed is read: hashes are made anew from the database's columns, journals are read byte by byte, and what is
shown is walked from its head back to the beginning.

Owns: reading and judging. It must never write, and never take Berth's word for anything.
Exit code 0 if every rule held, 1 for violations or damage, 2 if the question could not be answered.
"""
import argparse
import collections
import glob
import hashlib
import json
import os
import re
import struct
import subprocess
import sys

GENESIS = "0" * 64
MAX_INTEGER = 2**53 - 1
MAX_DETAILS, MAX_REASON, MAX_ACTOR, MAX_PENDING = 16 * 1024, 64, 256, 32
STANDS_ALONE = {"operation-start": "start", "operation-finish": "finish"}
CHAINED = {"transition", "unobserved", "lost", "import", "checkpoint", "resolution", "rollout", "quota", "grant"}
NAMES_A_GAP = {"lost", "import", "checkpoint"}
SAYS_ITS_STATE = NAMES_A_GAP | {"resolution"}
WITHOUT_STATES = {"rollout", "quota", "grant"}
# The kinds of objects whose status shows a chain.
SHOWN = {"TenantContainer", "AccessGrant", "Deployment", "TenantQuota"}
SHOWN_BY = "tenantcontainers.berth.dev,accessgrants.berth.dev,deployments.berth.dev,tenantquotas.berth.dev"
STATES = {"pending", "running", "paused", "stopped", "failed", "deleted"}
# The lifecycle, by the design's text; a life begins as pending.
LIFECYCLE = {
    None: {"pending"},
    "pending": {"running", "failed", "stopped"},
    "running": {"running", "paused", "failed"},
    "paused": {"running", "stopped", "failed"},
    "failed": {"pending", "stopped"},
    "stopped": {"pending", "deleted"},
    "deleted": set(),
}
ENVELOPE = ("v", "kind", "cluster", "uid", "seq", "epoch", "at", "from", "to", "reason", "actor", "generation",
            "operation", "prev", "details")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
HASH = re.compile(r"[0-9a-f]{64}\Z")
# What is not known: of a record that says its own state and leaves it out.
UNKNOWN = object()


class Unanswerable(Exception):
    """The question could not be answered."""


# --- the canonical text -----------------------------------------------------------------------------------------------


def hidden(c):
    n = ord(c)
    return (n < 0x20 or 0x7F <= n <= 0x9F or 0x200B <= n <= 0x200F or 0x2028 <= n <= 0x202E
            or 0x2066 <= n <= 0x2069 or n == 0xFEFF)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def unclean(value):
    """Why a value has no place in a canonical text; None if it has."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if abs(value) <= MAX_INTEGER else f"the integer {value} is too large"
    if isinstance(value, float):
        return f"the number {value} is no integer"
    if isinstance(value, str):
        if any(hidden(c) for c in value):
            return "a control character or a mark that hides text"
        return "half of a character" if any(0xD800 <= ord(c) <= 0xDFFF for c in value) else None
    parts = list(value.keys()) + list(value.values()) if isinstance(value, dict) else value
    return next((why for why in map(unclean, parts) if why), None)


def read_canonical(text):
    """The value of a canonical text, or (None, why it is none)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, f"no JSON: {error}"
    why = unclean(value)
    if not why and canonical(value) != text:
        why = "its keys are not in order, or it has white space, escapes or a key twice"
    return (None, why) if why else (value, None)


def too_long(text, limit):
    """Whether a cleaned string is longer than its bound: six visible characters were one."""
    return len(re.sub(r"\\u[0-9a-f]{4}", "?", text)) > limit


def wrong_envelope(r):
    """Why an object is no record's envelope; None if it is."""
    if not isinstance(r, dict) or sorted(r) != sorted(ENVELOPE):
        return "its keys are not those of a record"
    integer = lambda key, least: type(r[key]) is int and least <= r[key] <= MAX_INTEGER
    alone = r["kind"] in STANDS_ALONE
    checks = (
        ("v", r["v"] == 1 and type(r["v"]) is int),
        ("kind", isinstance(r["kind"], str) and (alone or r["kind"] in CHAINED)),
        ("cluster", isinstance(r["cluster"], str) and bool(UUID.match(r["cluster"]))),
        ("uid", isinstance(r["uid"], str) and bool(UUID.match(r["uid"]))),
        ("seq", integer("seq", 0)),
        ("epoch", integer("epoch", 0)),
        ("at", integer("at", -MAX_INTEGER)),
        ("from", r["from"] is None or r["from"] in STATES),
        ("to", r["to"] is None or r["to"] in STATES),
        ("reason", isinstance(r["reason"], str) and not too_long(r["reason"], MAX_REASON)),
        ("actor", isinstance(r["actor"], str) and not too_long(r["actor"], MAX_ACTOR)),
        ("generation", integer("generation", -MAX_INTEGER)),
        ("operation", (r["operation"] is None and not alone)
         or (isinstance(r["operation"], str) and bool(UUID.match(r["operation"])))),
        ("prev", isinstance(r["prev"], str) and bool(HASH.match(r["prev"]))),
        ("details", isinstance(r["details"], str) and bool(HASH.match(r["details"]))),
    )
    return next((f"{key}: {r[key]!r}" for key, good in checks if not good), None)


class Record:
    """One record, found in at least one place."""
    __slots__ = ("hash", "kind", "cluster", "uid", "seq", "epoch", "at", "from_", "to", "generation", "operation",
                 "prev", "homes")

    def __init__(self, digest, envelope):
        self.hash, self.homes = digest, set()
        for slot in ("kind", "cluster", "uid", "seq", "epoch", "at", "to", "generation", "operation", "prev"):
            setattr(self, slot, envelope[slot])
        self.from_ = envelope["from"]

    @property
    def chain(self):
        return self.cluster, self.uid

    @property
    def phase(self):
        return self.cluster, self.operation, STANDS_ALONE.get(self.kind)


# --- the journal, byte by byte ----------------------------------------------------------------------------------------


def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


CRC = crc_table()
# Two bytes at a time: a tail may have a hundred megabytes, and whoever waits for a ledger to settle reads it again and again.
CRC_OF_TWO = [(CRC[n & 0xFF] >> 8) ^ CRC[(CRC[n & 0xFF] ^ (n >> 8)) & 0xFF] for n in range(1 << 16)]


def crc32c(*parts):
    data = b"".join(parts)
    crc, table = 0xFFFFFFFF, CRC_OF_TWO
    for two in struct.unpack_from(f"<{len(data) // 2}H", data):
        crc = (crc >> 16) ^ table[(crc ^ two) & 0xFFFF]
    if len(data) % 2:
        crc = (crc >> 8) ^ CRC[(crc ^ data[-1]) & 0xFF]
    return crc ^ 0xFFFFFFFF


MAGIC, MARK, FRAME, MAX_PAYLOAD = b"BERTHSPL", b"\xffBR\xfe", 24, 8 * 1024 * 1024
ENTRY, SEAL, THINNED = 1, 2, 3
# What an entry's payload may be; RECORDS bring a record, each of its kinds of record.
RECORDS = {"chained": CHAINED, "carried": CHAINED, "operation": set(STANDS_ALONE)}
KNOWN_ENTRIES = RECORDS.keys() | {"present", "usage", "mark"}


def read_header(data):
    """(first entry, writer, length) of a segment's header, or (None, why)."""
    if len(data) < 26 or data[:8] != MAGIC:
        return None, "it does not begin as a segment"
    version, length, first, n = struct.unpack_from("<HHQH", data, 8)
    if version != 1:
        return None, f"format {version} is not known"
    if length != 26 + n or not 1 <= n <= 253 or len(data) < length:
        return None, "its header has an impossible length"
    if crc32c(data[:length - 4]) != struct.unpack_from("<I", data, length - 4)[0]:
        return None, "its header's checksum differs"
    try:
        return (first, data[22:22 + n].decode(), length), None
    except UnicodeDecodeError:
        return None, "the writer's name is no UTF-8"


def read_frame(data, at):
    """(type, number, payload, end) of the whole frame at an offset; None if there is none."""
    if data[at:at + 4] != MARK or len(data) < at + FRAME:
        return None
    kind, z1, z2, z3, length, number, crc = struct.unpack_from("<BBBBIQI", data, at + 4)
    if kind not in (ENTRY, SEAL, THINNED) or z1 or z2 or z3 or length > MAX_PAYLOAD:
        return None
    if (kind == SEAL and length) or (kind == THINNED and length != 8):
        return None
    end = at + FRAME + length
    if end > len(data):
        return None
    payload = data[at + FRAME:end]
    return (kind, number, payload, end) if crc32c(data[at:at + 20], payload) == crc else None


class Journal:
    """The segments of one spool's folder: entries in order, and what is damaged."""

    def __init__(self, folder):
        self.folder, self.writer, self.first, self.next = folder, None, None, None
        self.entries, self.damage, self.torn, self.unknown, self.thinned = [], [], 0, 0, 0
        # Beside a database it takes whatever comes: no chain follows from its order.
        self.is_beside = os.path.exists(os.path.join(folder, "_acknowledged"))
        place = os.path.join(folder, "_journal")
        if not os.path.isdir(place):
            raise Unanswerable(f"{folder} is no spool: it has no _journal")
        names = sorted(name for name in os.listdir(place) if name.endswith(".seg"))
        for index, name in enumerate(names):
            try:
                with open(os.path.join(place, name), "rb") as file:
                    data = file.read()
            except OSError as error:
                # Its writer may have let it go meanwhile, for the database has all of it.
                raise Unanswerable(f"{folder} changed while it was read: {error}") from error
            self.segment(name, data, index == len(names) - 1)

    def hurt(self, name, offset, why):
        self.damage.append((f"{self.folder}/_journal/{name}", offset, why))

    def segment(self, name, data, is_last):
        header, why = read_header(data)
        at = 0
        if header is None:
            if is_last and not data.strip(b"\0"):
                self.torn += 1
                return
            self.hurt(name, 0, why)
        else:
            first, writer, at = header
            if name != f"{first:020}.seg":
                self.hurt(name, 8, f"its first entry is {first}, which is not what its name says")
            if self.writer not in (None, writer):
                self.hurt(name, 22, f"written by {writer!r}, its neighbours by {self.writer!r}")
            self.writer = writer
            self.expect(name, 0, first)
        sealed = False
        while at < len(data):
            frame = read_frame(data, at)
            if frame is None:
                found = data.find(MARK, at + 1)
                while found >= 0 and read_frame(data, found) is None:
                    found = data.find(MARK, found + 1)
                if found < 0:
                    if is_last and not sealed:
                        self.torn += 1  # What every crash during an append leaves; nobody was told that it is durable.
                    else:
                        self.hurt(name, at, f"{len(data) - at} bytes at the end are no whole frame")
                    return
                if header is not None or at:
                    self.hurt(name, at, f"{found - at} bytes are no whole frame")
                at = found
                continue
            kind, number, payload, end = frame
            if sealed:
                self.hurt(name, at, "a frame behind the seal")
            self.expect(name, at, number)
            if kind == SEAL:
                sealed = True
            elif kind == THINNED:
                count = struct.unpack("<Q", payload)[0]
                if not count:
                    self.hurt(name, at, "thinned samples, and none of them")
                self.thinned += count
                self.next = number + count
            else:
                self.entry(name, at, number, payload)
                self.next = number + 1
            at = end

    def expect(self, name, offset, number):
        if self.next is None:
            self.first = number
        elif number != self.next:
            lost = f"{number - self.next} entries are missing" if number > self.next else "numbers go back"
            self.hurt(name, offset, f"{lost}: {number} where {self.next} comes next")
        self.next = number

    def entry(self, name, offset, number, payload):
        try:
            value = json.loads(payload.decode())
            kind = value["entry"]
            if kind in RECORDS and not all(isinstance(value[key], str) for key in ("record", "hash")):
                raise ValueError("record and hash are texts")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return self.hurt(name, offset, f"entry {number} is no entry: {error!r}")
        if kind not in KNOWN_ENTRIES:
            self.unknown += 1
        self.entries.append((number, kind, value))


# --- the homes --------------------------------------------------------------------------------------------------------

MICROS = "(extract(epoch FROM {0}) * 1000000)::bigint AS {0}"
HEX = "encode({0}, 'hex') AS {0}"
SHARED = ["v", "cluster_id", "epoch", MICROS.format("at"), "from_state", "to_state", "actor", "generation",
          "operation_id", HEX.format("details_hash"), HEX.format("hash"), "details"]
TABLES = {
    "ledger_heads": ["cluster_id", "uid", "sequence", "epoch", HEX.format("hash"), HEX.format("prev"), "state",
                     MICROS.format("at")],
    "container_status_history": SHARED + ["kind", "uid", "sequence", "reason", HEX.format("prev"), "object_kind",
                                          "namespace", "name"],
    "operation_logs": SHARED + ["phase", "target_uid", "action"],
    "ledger_writers": ["writer", "acknowledged", HEX.format("digest")],
    "ledger_quarantine": ["cluster_id", "uid", "what", HEX.format("hash"), "error", "resolved_at IS NULL AS open"],
    "tenant_containers": ["cluster_id", "id", "status", "deleted", "sequence", "namespace", "name"],
    "user_roles": ["cluster_id", "id", "access", "deleted", "sequence", "namespace", "name"],
    "deployment_status": ["cluster_id", "id", "scope", "outcome", "deleted", "sequence", "namespace", "name"],
    "tenant_quota": ["cluster_id", "id", "tenant_org_id", "deleted", "sequence", "name"],
}
COPY_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def uncopied(line):
    return re.sub(r"\\(.)", lambda m: COPY_ESCAPES.get(m.group(1), m.group(1)), line)


def query_database(url):
    """Yields (table, row) of one snapshot of the database."""
    script = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"]
    for table, columns in TABLES.items():
        script += [f"\\echo :{table}",
                   f"COPY (SELECT row_to_json(t) FROM (SELECT {', '.join(columns)} FROM berth.{table}) t) TO STDOUT;"]
    script += ["\\echo :end", "COMMIT;"]
    command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    environment = dict(os.environ, PGCLIENTENCODING="UTF8", PGCONNECT_TIMEOUT="10")
    try:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
                                   env=environment)
    except OSError as error:
        raise Unanswerable(f"psql does not run: {error}") from error
    try:
        program.stdin.write("\n".join(script))
        program.stdin.close()
    except BrokenPipeError:
        pass  # It has ended, and says why by how.
    table = None
    for line in program.stdout:
        if line.startswith(":"):
            table = line[1:].strip()
        else:
            yield table, json.loads(uncopied(line.rstrip("\n")))
    if program.wait() != 0 or table != "end":
        raise Unanswerable("the database was not read to its end; what psql said is above")


def read_dump(folder):
    """Yields (table, row) of a folder of JSON lines."""
    for table in TABLES:
        path = os.path.join(folder, f"{table}.jsonl")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in filter(str.strip, file):
                    yield table, json.loads(line)


def kubectl(*arguments):
    command = ["kubectl", *arguments, "--output", "json"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unanswerable(f"kubectl does not run: {error}") from error
    if answer.returncode != 0:
        raise Unanswerable(f"{' '.join(command)}: {answer.stderr.strip()}")
    return json.loads(answer.stdout)


def items(value):
    return value.get("items", [value]) if isinstance(value, dict) else value


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise Unanswerable(f"{path}: {error}") from error


# --- judging ----------------------------------------------------------------------------------------------------------


class Checker:
    """What was found, and what is wrong with it."""

    def __init__(self, settled=False, cluster=None):
        self.settled, self.cluster = settled, cluster
        self.records = {}  # by hash, wherever it was found
        self.phases = {}  # (cluster, operation, phase) of the database -> hash
        self.spooled = []  # (record, where)
        self.heads, self.present, self.kinds, self.quarantined = {}, {}, {}, set()
        self.statuses, self.moving, self.tombstones = None, set(), None
        self.has_database = self.segments_gone = False
        self.spool_ends = {}  # chain -> last record of a journal's order
        self.claims = []
        self.violations, self.counts = [], collections.Counter()

    def violation(self, word, where, what, record=None, uid=None):
        self.violations.append({
            "word": word, "where": where, "what": what,
            "uid": uid or (record.uid if record else None),
            "sequence": record.seq if record else None,
            "hash": record.hash if record else None,
        })

    # What is read, and judged by itself.

    def text(self, where, text, details, stated=None, uid=None):
        """Takes a record by its canonical text. `details`: its canonical text, None if missing."""
        envelope, why = read_canonical(text) if isinstance(text, str) else (None, "it is no text")
        why = why or wrong_envelope(envelope)
        if why:
            self.violation("altered", where, f"no canonical record: {why}", uid=uid)
            return None
        digest = sha256(text)
        if stated is not None and stated != digest:
            self.violation("hash-differs", where, f"it hashes to {digest}, and is called {stated}", uid=envelope["uid"])
        record = self.take(digest, envelope, where)
        if details is None:
            self.counts["without details"] += 1
        else:
            _, why = read_canonical(details)
            if why or sha256(details) != envelope["details"]:
                self.violation("altered", where, f"its details do not match: {why or 'another digest'}", record)
            elif len(details.encode()) > MAX_DETAILS:
                self.violation("altered", where, "its details are longer than details may be", record)
        return record

    def take(self, digest, envelope, where):
        record = self.records.get(digest)
        if record is None:
            record = self.records[digest] = Record(digest, envelope)
            alone = record.kind in STANDS_ALONE
            if alone and (record.seq != 0 or record.prev != GENESIS):
                self.violation("stands-alone", where, "an operation's record with a place in a chain", record)
            if not alone and (record.seq == 0 or (record.seq == 1) != (record.prev == GENESIS)):
                self.violation("bad-beginning", where, f"sequence {record.seq} behind {record.prev[:12]}", record)
        return record

    def row(self, table, row):
        """Takes a row of the database."""
        self.counts[f"rows of {table}"] += 1
        if table == "ledger_heads":
            self.heads[row["cluster_id"], row["uid"]] = row
        elif table in ("tenant_containers", "user_roles", "tenant_quota"):
            self.present[row["cluster_id"], row["id"]] = row
        elif table == "deployment_status":
            # One for each revision: the latest stands for the object.
            chain = row["cluster_id"], row["id"]
            if row["scope"] == "rollout" and self.present.get(chain, row)["sequence"] <= row["sequence"]:
                self.present[chain] = row
        elif table == "ledger_quarantine":
            if row["open"]:
                self.quarantined.add(row["hash"])
                self.counts["in quarantine"] += 1
                # It has not arrived, and does not by itself.
                self.violation("quarantined", "ledger_quarantine", f"{row['what']}: {row['error']}", uid=row["uid"])
        elif table in ("container_status_history", "operation_logs"):
            self.history(table, row)

    def history(self, table, row):
        alone = table == "operation_logs"
        envelope = {
            "v": row["v"], "cluster": row["cluster_id"], "epoch": row["epoch"], "at": row["at"],
            "from": row["from_state"], "to": row["to_state"], "actor": row["actor"],
            "generation": row["generation"], "operation": row["operation_id"], "details": row["details_hash"],
            "kind": f"operation-{row['phase']}" if alone else row["kind"],
            "uid": row["target_uid"] if alone else row["uid"],
            "seq": 0 if alone else row["sequence"],
            "reason": row["action"] if alone else row["reason"],
            "prev": GENESIS if alone else row["prev"],
        }
        why = wrong_envelope(envelope) or unclean(envelope)
        if why:
            self.violation("altered", table, f"no record: {why}", uid=envelope["uid"])
            return
        digest, stated = sha256(canonical(envelope)), row["hash"]
        # It stays under the name that its neighbours know it by, so that one alteration is named once.
        again = stated in self.records and table in self.records[stated].homes
        record = self.take(stated, envelope, table)
        if digest != stated:
            self.violation("hash-differs", table, f"its columns hash to {digest}", record)
        if again:
            self.violation("duplicate", table, "a second time", record)
        record.homes |= {"database", table}
        if row["details"] is None:
            self.counts["without details"] += 1
        else:
            text = canonical(row["details"])
            if unclean(row["details"]) or sha256(text) != row["details_hash"]:
                self.violation("altered", table, "its details do not match their digest", record)
        if alone:
            other = self.phases.setdefault(record.phase, record.hash)
            if other != record.hash:
                self.violation("told-twice", table, f"{record.operation} {row['phase']} is told by {other} too", record)
        else:
            self.kinds[record.chain] = row["object_kind"]

    def spool(self, folder):
        """Takes a spool's folder."""
        # State files first: they are written after the journal, so a journal that is read behind them has their records.
        for path in glob.glob(os.path.join(glob.escape(folder), "*", "tenant_*.json")):
            if not os.path.basename(os.path.dirname(path)).startswith("_"):
                try:
                    with open(path, encoding="utf-8") as file:
                        self.claims.append((path, json.load(file)))
                except (OSError, ValueError) as error:
                    self.violation("claim-unreadable", path, repr(error))
        journal = Journal(folder)
        self.counts["entries of journals"] += len(journal.entries)
        self.counts["entries of an unknown kind"] += journal.unknown
        self.counts["torn ends"] += journal.torn
        self.counts["samples thinned"] += journal.thinned
        for place, offset, why in journal.damage:
            self.violation("damage", f"{place} at {offset}", why)
        if journal.entries and journal.first != 1:
            self.segments_gone = True
            self.counts["journals that do not begin with entry 1"] += 1
        self.segments_gone = self.segments_gone or journal.is_beside
        told = {}
        for number, kind, value in journal.entries:
            if kind not in RECORDS:
                continue
            where = f"{folder} entry {number}"
            record = self.text(where, value["record"], value.get("details"), value["hash"])
            if record is None:
                continue
            if record.kind not in RECORDS[kind]:
                self.violation("misplaced", where, f"a record of kind {record.kind} as an entry {kind}", record)
                continue
            self.spooled.append((record, where))
            if f"spool {folder}" in record.homes:
                # Whoever sends again what was kept may have it kept twice; its hash makes it one.
                self.counts["entries that repeat a record"] += 1
            record.homes |= {"spool", f"spool {folder}"}
            if kind == "chained" and not journal.is_beside:
                self.spool_ends[record.chain] = record
            elif kind == "operation":
                other = told.setdefault(record.phase, record.hash)
                if other != record.hash:
                    self.violation("told-twice", where, f"{record.phase[1:]} is told by {other} too", record)

    def status(self, objects, again=None):
        """Takes objects that have a chain; `again`: as they were later, to leave out what moved meanwhile."""
        self.statuses = {}
        for item in objects:
            uid = item["metadata"]["uid"]
            ledger = (item.get("status") or {}).get("ledger") or {}
            self.statuses[uid] = item
            for index, text in enumerate(ledger.get("pending") or []):
                record = self.text(self.place(item), text, None, uid=uid)
                if record is not None:
                    record.homes |= {"status"}
                    self.counts["without details"] -= 1  # That is how they travel.
        if again is not None:
            now = {item["metadata"]["uid"]: item for item in again}
            line = lambda item: ((item or {}).get("status") or {}).get("ledger")
            self.moving = {uid for uid in set(now) | set(self.statuses)
                           if uid not in now or uid not in self.statuses or line(now[uid]) != line(self.statuses[uid])}
            self.counts["objects that moved meanwhile"] += len(self.moving)

    @staticmethod
    def place(item):
        return f"status of {item['metadata'].get('namespace', '')}/{item['metadata'].get('name', '')}"

    def tombstone(self, config_map):
        """Takes a tombstone."""
        self.tombstones = self.tombstones or {}
        name, data = config_map["metadata"]["name"], config_map.get("data") or {}
        where = f"tombstone {name}"
        self.counts["tombstones"] += 1
        bad = lambda why, uid=None: self.violation("tombstone-malformed", where, why, uid=uid)
        try:
            target, carried = json.loads(data["target"]), json.loads(data["records"])
            sequence, uid, terminal = int(data["sequence"]), target["uid"], data["terminal"]
            int(data["epoch"])
            pairs = [(one["record"], one.get("details")) for one in carried]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            bad(f"it cannot be read: {error!r}")
            return
        if name != f"berth-tombstone-{uid}-{terminal[:12]}":
            bad("its name is not made of its object and its last record", uid)
        missing = [key for key in ("cluster", "uid", "kind", "namespace", "name") if not isinstance(target.get(key), str)]
        if missing:
            bad(f"its target lacks {', '.join(missing)}", uid)
        taken = []
        for text, details in pairs:
            record = self.text(where, text, details, uid=uid)
            if record is None:
                continue
            record.homes |= {"tombstone"}
            taken.append(record)
            if record.chain != (target.get("cluster"), uid):
                self.violation("misplaced", where, "a record of another object", record)
        chained = [record for record in taken if record.kind in CHAINED]
        last = next((record for record in chained if record.hash == terminal), None)
        if last is None:
            bad("it does not carry its last record", uid)
            return
        if last.seq != sequence or str(last.epoch) != str(data["epoch"]):
            bad(f"its last record is {last.seq} of epoch {last.epoch}, it says {sequence} of {data['epoch']}", uid)
        if last.to != "deleted":
            bad(f"its last record ends in {last.to}", uid)
        for before, after in zip(chained, chained[1:]):
            if after.seq <= before.seq:
                bad("its records are not in order", uid)
        self.tombstones[uid] = last

    # What is judged together.

    def judge(self):
        self.chains = chains = collections.defaultdict(list)
        for record in self.records.values():
            if record.kind in CHAINED:
                chains[record.chain].append(record)
        self.counts["records"] = len(self.records)
        self.counts["chains"] = len(chains)
        by_uid = collections.defaultdict(list)
        for chain, records in chains.items():
            by_uid[chain[1]].append(chain)
            self.links(records)
        for chain in self.heads.keys() - chains.keys():
            row = self.heads[chain]
            self.violation("head-unknown", "ledger_heads", f"{row['hash']} is not there", uid=chain[1])
        lines = {}
        for chain, records in chains.items():
            stored = [record for record in records if "database" in record.homes]
            lines[chain] = self.line(chain, records, stored)
        self.shown(by_uid, lines)
        self.carried()
        self.state_files()
        if self.settled:
            self.after_settling(lines)

    def links(self, records):
        """Each record against the one that it was made on, on the line or beside it."""
        for record in records:
            if record.prev == GENESIS:
                continue
            before = self.records.get(record.prev)
            where = self.where(record)
            if before is None:
                if record.kind in NAMES_A_GAP:
                    self.counts["gaps that are named"] += 1
                elif not self.is_cut_off(record):
                    self.violation("predecessor-missing", where, f"no record has the hash {record.prev}", record)
            elif before.chain != record.chain or before.kind in STANDS_ALONE:
                self.violation("misplaced", where, f"made on {before.hash}, which is of another chain", record)
            elif before.seq + 1 != record.seq:
                self.violation("sequence-jumps", where, f"{record.seq} made on {before.seq}", record)
            else:
                if record.at < before.at:
                    self.counts["clocks that go back"] += 1
                if record.epoch < before.epoch:
                    self.counts["epochs that go back"] += 1

    def is_cut_off(self, record):
        """Whether what came before may be elsewhere: a tail begins anywhere, a database does not."""
        if self.has_database:
            return False
        return record.homes <= {"status"} or ("spool" in record.homes and self.segments_gone)

    @staticmethod
    def where(record):
        return ", ".join(sorted(home for home in record.homes if home not in ("database", "spool"))) or "?"

    def line(self, chain, records, stored):
        """The records from a chain's head to its beginning, newest first; states are judged on the way forward."""
        head = None
        if self.has_database:
            row = self.heads.get(chain)
            if row is None:
                if stored:
                    self.violation("no-head", "ledger_heads", f"{len(stored)} records without a head", uid=chain[1])
            else:
                head = self.records.get(row["hash"])
                if head is None or "database" not in head.homes:
                    self.violation("head-unknown", "ledger_heads", f"{row['hash']} is not there", uid=chain[1])
                else:
                    self.head_row(row, head)
        if head is None and not self.has_database:
            shown = next((self.records.get(self.ledger(uid).get("head")) for uid in [chain[1]]
                          if self.statuses and uid in self.statuses), None)
            head = self.spool_ends.get(chain) or shown
        head = head or max(records, key=lambda record: (record.seq, record.epoch, record.hash))
        line, on_line = [], set()
        record = head
        while record is not None and record.hash not in on_line:
            line.append(record)
            on_line.add(record.hash)
            record = self.records.get(record.prev)
        self.forward(list(reversed(line)))
        beside = [record for record in records if record.hash not in on_line]
        for record in beside:
            follows, ancestor = record, record
            while ancestor is not None and ancestor.hash not in on_line:
                follows, ancestor = ancestor, self.records.get(ancestor.prev)
            if ancestor is head:
                # Ahead of the database's head: in the database only by mistake, elsewhere until it is brought there.
                if "database" in record.homes and follows is not None and "database" in follows.homes:
                    rivals = [one for one in records if one.prev == head.hash and "database" in one.homes]
                    if not self.settled and ("deleted" in (follows.to, head.to) or len(rivals) > 1):
                        # An import moves no head onto an ending or off it, nor chooses between two that claim one place.
                        self.counts["beyond their head"] += 1
                    else:
                        self.violation("head-behind", "ledger_heads", f"it follows the head {head.hash}", record)
                else:
                    self.counts["ahead of the database"] += 1
            else:
                self.counts["superseded"] += 1
            before = self.records.get(record.prev)
            self.step(UNKNOWN if before is None else self.left(before), record)
        return line

    def head_row(self, row, head):
        stated = (row["sequence"], row["epoch"], row["prev"], row["at"])
        if stated != (head.seq, head.epoch, head.prev, head.at):
            self.violation("head-differs", "ledger_heads", "the head's columns are not those of its record", head)
        state = self.left(head)
        if head.to is not None and row["state"] != state:
            self.violation("head-differs", "ledger_heads", f"state {row['state']}, its record leaves {state}", head)

    def left(self, record):
        """The state that a record leaves: its `to`, or, where it says none, what it found."""
        while record is not None and record.to is None and record.kind not in SAYS_ITS_STATE:
            if record.prev == GENESIS:
                return record.from_
            record = self.records.get(record.prev)
        if record is None or record.to is None:
            return UNKNOWN
        return record.to

    def forward(self, line):
        state = None if line and line[0].prev == GENESIS else UNKNOWN
        for record in line:
            self.step(state, record)
            if record.to is not None:
                state = record.to
            elif record.kind in SAYS_ITS_STATE:
                state = UNKNOWN

    def step(self, state, record):
        if record.prev == GENESIS:
            state = None
        where = self.where(record)
        if record.kind not in SAYS_ITS_STATE and state is not UNKNOWN and record.from_ != state:
            if not (record.kind != "transition" and record.from_ is None and record.to is None):
                self.violation("from-differs", where, f"from {record.from_}, the one before left {state}", record)
        if record.kind == "transition":
            if record.to is None:
                self.violation("no-state", where, "a transition to nowhere", record)
            elif record.to not in LIFECYCLE[record.from_]:
                self.violation("no-such-transition", where, f"{record.from_} to {record.to}", record)
        elif record.kind in WITHOUT_STATES and record.to not in (None, record.from_):
            # A life without states has its end and no other.
            if record.to not in LIFECYCLE[record.from_] and (record.from_, record.to) != (None, "deleted"):
                self.violation("no-such-transition", where, f"{record.from_} to {record.to}", record)
        if state == "deleted" and record.kind not in SAYS_ITS_STATE:
            self.violation("follows-the-end", where, f"a {record.kind} behind the end of the life", record)

    def ledger(self, uid):
        return (self.statuses[uid].get("status") or {}).get("ledger") or {}

    def shown(self, by_uid, lines):
        """Each status: its head is on the line, and at most one behind."""
        for uid, item in (self.statuses or {}).items():
            if uid in self.moving:
                continue
            ledger, where = self.ledger(uid), self.place(item)
            head, sequence = ledger.get("head") or "", ledger.get("sequence") or 0
            chain = next((chain for chain in by_uid.get(uid, []) if self.cluster in (None, chain[0])), None)
            line = lines.get(chain, [])
            ahead = [one for one in self.chains.get(chain, ()) if one.seq > sequence + 1]
            self.counts["statuses"] += 1
            self.pending(uid, where, ledger)
            if not head:
                if sequence:
                    self.violation("shown-differs", where, f"sequence {sequence} without a head", uid=uid)
                for one in ahead[:1]:
                    self.violation("shown-behind", where, f"nothing is shown, the chain is at {one.seq}", uid=uid)
                continue
            record = self.records.get(head)
            if record is None or record.uid != uid:
                if self.has_database or self.spool_ends:
                    self.violation("shown-unknown", where, f"no record has the hash {head}", uid=uid)
                continue
            if record.seq != sequence:
                self.violation("shown-differs", where, f"it says {sequence}, its head is {record.seq}", record)
            phase, state = (item.get("status") or {}).get("phase"), self.left(record)
            if phase and state not in (None, UNKNOWN) and phase.lower() != state:
                self.violation("phase-differs", where, f"it shows {phase}, its head leaves {state}", record)
            for one in [one for one in ahead if self.descends(one, record)][:1]:
                self.violation("shown-behind", where, f"shown {record.seq}, the chain is at {one.seq}", record)
            if any(one.hash == head for one in line):
                pass
            elif self.descends(record, line[0] if line else None):
                self.counts["statuses ahead of the database"] += 1
            elif "database" in record.homes or self.settled:
                self.violation("shown-superseded", where, "the record that is shown is beside the line", record)
            else:
                self.counts["statuses parted from the database"] += 1
            if self.has_database:
                self.carried_by_status(uid, where, record, set(ledger.get("pending") or []))

    def descends(self, record, ancestor):
        seen = set()
        while record is not None and record.hash not in seen:
            if ancestor is None or record is ancestor:
                return True
            seen.add(record.hash)
            record = self.records.get(record.prev)
        return False

    def carried_by_status(self, uid, where, record, pending):
        """What is shown and not in the database is carried by the status itself."""
        texts = {sha256(text) for text in pending}
        seen = set()
        while record is not None and record.hash not in seen:
            seen.add(record.hash)
            if "database" not in record.homes and record.hash not in texts and "tombstone" not in record.homes:
                self.violation("not-carried", where, "shown, not in the database, and not pending", record)
            record = self.records.get(record.prev)

    def pending(self, uid, where, ledger):
        texts = ledger.get("pending") or []
        self.counts["pending"] += len(texts)
        if len(texts) > MAX_PENDING:
            self.violation("pending-malformed", where, f"{len(texts)} records, at most {MAX_PENDING} may be", uid=uid)
        before, line = 0, set()
        record = self.records.get(ledger.get("head") or "")
        while record is not None and record.hash not in line:
            line.add(record.hash)
            record = self.records.get(record.prev)
        for text in texts:
            record = self.records.get(sha256(text))
            if record is None:
                continue  # It has been named as altered.
            if record.uid != uid or record.kind in STANDS_ALONE:
                self.violation("misplaced", where, "pending, and not of this object's chain", record)
            elif record.seq <= before:
                self.violation("pending-malformed", where, f"{record.seq} behind {before}", record)
            elif record.hash not in line:
                self.violation("pending-malformed", where, "pending, and not on the way back from its head", record)
            before = max(before, record.seq)

    def carried(self):
        """What tombstones carry hangs together with what is stored."""
        for uid, last in (self.tombstones or {}).items():
            row = self.heads.get(last.chain)
            head = self.records.get(row["hash"]) if row else None
            if head is not None and not self.descends(last, head) and not self.descends(head, last):
                self.counts["tombstones parted from the database"] += 1
            item = (self.statuses or {}).get(uid)
            if item and not item["metadata"].get("deletionTimestamp"):
                self.counts["tombstones of objects that live"] += 1

    def state_files(self):
        for path, state in self.claims:
            try:
                ledger, target = state["ledger"], state["container"]["target"]
                head, sequence, uid = ledger["head"], ledger["sequence"], target["uid"]
            except (KeyError, TypeError) as error:
                self.violation("claim-unreadable", path, repr(error))
                continue
            self.counts["state files"] += 1
            if not head or head == GENESIS:
                continue
            record = self.records.get(head)
            if record is None and self.segments_gone and not self.has_database:
                continue
            if record is None or record.uid != uid or record.seq != sequence:
                self.violation("claim-unknown", path, f"no record {sequence} of it has the hash {head}", uid=uid)
            container = state["container"]
            name = file_name(container.get("user", ""), container.get("service_name", ""))
            if name is not None and name != os.path.basename(path):
                self.violation("claim-misnamed", path, f"its content belongs in {name}", uid=uid)

    def after_settling(self, lines):
        """Nothing is on its way any more."""
        for uid, item in (self.statuses or {}).items():
            if self.ledger(uid).get("pending"):
                self.violation("pending-left", self.place(item), "records are still pending", uid=uid)
        for uid, last in (self.tombstones or {}).items():
            self.violation("tombstone-left", f"tombstone of {uid}", "it is still there", last)
        if not self.has_database:
            return
        for record, where in self.spooled:
            if record.hash in self.quarantined:
                continue  # It has been named.
            if record.kind in STANDS_ALONE:
                if record.phase not in self.phases:
                    self.violation("not-in-database", where, f"{record.phase[1:]} is told nowhere else", record)
            elif "database" not in record.homes:
                self.violation("not-in-database", where, "spooled, and never brought there", record)
        for record in self.records.values():
            if record.homes & {"status", "tombstone"} and "database" not in record.homes and "spool" not in record.homes:
                self.violation("not-in-database", self.where(record), "carried, and never brought there", record)
        for chain, line in lines.items():
            row = self.heads.get(chain)
            if row is None or not line:
                continue
            item = (self.statuses or {}).get(chain[1])
            if item is not None:
                if chain[1] not in self.moving and self.ledger(chain[1]).get("head") != row["hash"]:
                    self.violation("heads-differ", self.place(item), f"the database's head is {row['hash']}", line[0])
            elif (self.statuses is not None and self.kinds.get(chain) in SHOWN and chain[1] not in self.moving
                  and self.cluster in (None, chain[0]) and row["state"] != "deleted"):
                self.violation("gone-without-an-end", "ledger_heads", f"the object is gone, its chain in {row['state']}",
                               line[0])
            present = self.present.get(chain)
            if present is not None:
                # A grant has no state but its end.
                has_states = "status" in present
                stated = (present["sequence"], present["status"] if has_states else None, present["deleted"])
                if stated != (row["sequence"], row["state"] if has_states else None, row["state"] == "deleted"):
                    table = ("tenant_containers" if has_states else
                             "deployment_status" if "scope" in present else
                             "tenant_quota" if "tenant_org_id" in present else "user_roles")
                    self.violation("present-differs", table, f"{stated}, its chain is at "
                                   f"{row['sequence']} in {row['state']}", line[0])

    def report(self):
        return {"ok": not self.violations, "settled": self.settled, "violations": self.violations,
                "counts": {name: count for name, count in sorted(self.counts.items()) if count}}


def file_name(user, service):
    """The name of the readable state file; None where it was too long for one."""
    def part(text):
        kept = []
        data = text.encode()
        for index, byte in enumerate(data):
            c = chr(byte)
            inner = c == "." and 0 < index < len(data) - 1
            kept.append(c if c in "abcdefghijklmnopqrstuvwxyz0123456789-" or inner else f"%{byte:02X}")
        return "".join(kept) or "%"
    name = f"tenant_{part(user)}_{part(service)}.json"
    return name if len(name) <= 255 else None


def print_for_people(report):
    safe = lambda text: "".join(f"\\u{ord(c):04x}" if hidden(c) else c for c in str(text))
    for v in report["violations"]:
        about = [v["uid"]] if v["uid"] else []
        about += [f"#{v['sequence']} {v['hash'][:12]}"] if v["hash"] else []
        print(f"{v['word']}: {safe(v['where'])}: {safe(' '.join(about) + ': ' if about else '')}{safe(v['what'])}")
    for name, count in report["counts"].items():
        print(f"{count:>10}  {name}")
    print(f"{len(report['violations'])} violations" if report["violations"] else "every rule held")


def arguments(argv):
    parser = argparse.ArgumentParser(description="Checks a ledger without any of Berth's code.")
    parser.add_argument("--database-url", help="the database to read with psql (else the environment's DATABASE_URL)")
    parser.add_argument("--no-database", action="store_true", help="whatever the environment says")
    parser.add_argument("--spool", action="append", default=[], metavar="DIR", help="a spool's folder, live or copied")
    parser.add_argument("--statuses", metavar="FILE", help=f"kubectl get {SHOWN_BY} -A -o json")
    parser.add_argument("--tombstones", metavar="FILE", help="kubectl get configmaps -A -l berth.dev/tombstone=true -o json")
    parser.add_argument("--kubectl", action="store_true", help="ask kubectl for both, before and after the rest")
    parser.add_argument("--dump", metavar="DIR",
                        help="tables as TABLE.jsonl, statuses.json, tombstones.json, spools/NAME/")
    parser.add_argument("--cluster", metavar="UID", help="the cluster that the statuses are of, if the database has several")
    parser.add_argument("--settled", action="store_true", help="nothing may be on its way any more")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args(argv)


def check(options):
    checker = Checker(options.settled, options.cluster)
    shown = ("get", SHOWN_BY, "--all-namespaces")
    graves = ("get", "configmaps", "--all-namespaces", "--selector", "berth.dev/tombstone=true")
    spools, statuses, tombstones = list(options.spool), None, None
    # Statuses first: what is shown is durable, so the homes that are read behind them have it.
    if options.kubectl:
        statuses, tombstones = items(kubectl(*shown)), items(kubectl(*graves))
    if options.statuses:
        statuses = items(read_json(options.statuses))
    if options.tombstones:
        tombstones = items(read_json(options.tombstones))
    url = None if options.no_database or options.dump else options.database_url or os.environ.get("DATABASE_URL")
    rows = ()
    if options.dump:
        if not os.path.isdir(options.dump):
            raise Unanswerable(f"{options.dump} is no folder")
        rows = read_dump(options.dump)
        checker.has_database = bool(glob.glob(os.path.join(glob.escape(options.dump), "*.jsonl")))
        spools += sorted(glob.glob(os.path.join(glob.escape(options.dump), "spools", "*", "")))
        for name in ("statuses", "tombstones"):
            path = os.path.join(options.dump, f"{name}.json")
            if os.path.exists(path):
                found = items(read_json(path))
                statuses, tombstones = (found, tombstones) if name == "statuses" else (statuses, found)
    elif url:
        rows = query_database(url)
        checker.has_database = True
    if not (url or options.dump or spools or statuses):
        raise Unanswerable("nothing to check: name a database, a spool, statuses or a dump")
    for table, row in rows:
        checker.row(table, row)
    for folder in spools:
        checker.spool(folder.rstrip("/"))
    again = items(kubectl(*shown)) if options.kubectl else None
    if statuses is not None:
        checker.status(statuses, again)
    for config_map in tombstones or []:
        checker.tombstone(config_map)
    checker.judge()
    return checker.report()


def main(argv=None):
    options = arguments(argv)
    try:
        report = check(options)
    except Unanswerable as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    if options.json:
        json.dump(report, sys.stdout, ensure_ascii=True)
        print()
    else:
        print_for_people(report)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
