"""The second checker is tested too: good ledgers pass, and each broken one is named by the word that fits.

Ledgers are made by hand here, journals byte by byte, with nothing of the checker's but its command line and its CRC,
which a published vector pins down.
"""
import contextlib
import copy
import hashlib
import io
import json
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check  # noqa: E402

CLUSTER = "00000000-0000-0000-0000-0000000000c1"
UID = "00000000-0000-0000-0000-000000000001"
OPERATION = "00000000-0000-0000-0000-0000000000aa"
ZEROS = "0" * 64
LIFE = [(None, "pending"), ("pending", "running"), ("running", "paused"), ("paused", "stopped"), ("stopped", "deleted")]


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value):
    return hashlib.sha256((value if isinstance(value, str) else text(value)).encode()).hexdigest()


def record(seq, from_, to, prev, kind="transition", details=None, **more):
    details = {"message": f"step {seq}"} if details is None else details
    return {"v": 1, "kind": kind, "cluster": CLUSTER, "uid": UID, "seq": seq, "epoch": 7, "at": 1_700_000_000_000_000 + seq,
            "from": from_, "to": to, "reason": "Because", "actor": "user:ann", "generation": 1, "operation": None,
            "prev": prev, "details": digest(details), **more}, details


def life(hops=LIFE):
    made, prev = [], ZEROS
    for seq, (from_, to) in enumerate(hops, 1):
        made.append(record(seq, from_, to, prev))
        prev = digest(made[-1][0])
    return made


def phase(name, **more):
    return record(0, None, None, ZEROS, kind=f"operation-{name}", operation=OPERATION, **{"details": {"n": 1}, **more})


def history_row(made):
    r, details = made
    return {"v": r["v"], "kind": r["kind"], "cluster_id": r["cluster"], "uid": r["uid"], "sequence": r["seq"],
            "epoch": r["epoch"], "at": r["at"], "from_state": r["from"], "to_state": r["to"], "reason": r["reason"],
            "actor": r["actor"], "generation": r["generation"], "operation_id": r["operation"], "prev": r["prev"],
            "details_hash": r["details"], "hash": digest(r), "details": details, "object_kind": "TenantContainer",
            "namespace": "a", "name": "b"}


def operation_row(made):
    row = history_row(made)
    row["phase"], row["action"], row["target_uid"] = row["kind"].split("-")[1], row["reason"], row["uid"]
    return row


def head_row(made, state=None):
    r = made[0]
    return {"cluster_id": r["cluster"], "uid": r["uid"], "sequence": r["seq"], "epoch": r["epoch"], "hash": digest(r),
            "prev": r["prev"], "state": state or r["to"], "at": r["at"]}


def status(made, pending=(), **more):
    r = made[0] if made else None
    ledger = {"sequence": r["seq"] if r else 0, "head": digest(r) if r else "", "pending": [text(p[0]) for p in pending]}
    return {"metadata": {"uid": UID, "namespace": "a", "name": "b"},
            "status": {"phase": r["to"].capitalize() if r else "Pending", "ledger": {**ledger, **more}}}


def tombstone(records, **more):
    last = records[-1][0]
    target = {"cluster": CLUSTER, "uid": UID, "kind": "TenantContainer", "namespace": "a", "name": "b"}
    data = {"terminal": digest(last), "sequence": str(last["seq"]), "epoch": str(last["epoch"]), "target": json.dumps(target),
            "records": json.dumps([{"record": text(r), "details": text(d)} for r, d in records]), **more}
    return {"metadata": {"name": f"berth-tombstone-{UID}-{digest(last)[:12]}",
                         "labels": {"berth.dev/tombstone": "true"}}, "data": data}


# The journal, by the two tables of docs/ledger.md.


def header(first=1, writer=b"w-0"):
    data = b"BERTHSPL" + struct.pack("<HHQH", 1, 26 + len(writer), first, len(writer)) + writer
    return data + struct.pack("<I", check.crc32c(data))


def frame(number, payload, kind=1):
    head = b"\xff\x42\x52\xfe" + bytes([kind, 0, 0, 0]) + struct.pack("<IQ", len(payload), number)
    return head + struct.pack("<I", check.crc32c(head, payload)) + payload


def entry(made, **more):
    r, details = made
    kind = "operation" if r["kind"].startswith("operation-") else "chained"
    return json.dumps({"entry": kind, "record": text(r), "hash": digest(r), "details": text(details), "new": 1,
                       **more}).encode()


def carried(made, **more):
    target = {"cluster": CLUSTER, "uid": UID, "kind": "TenantContainer", "namespace": "a", "name": "b"}
    return entry(made, entry="carried", target=target, **more)


def journal(made, first=1):
    return header(first) + b"".join(frame(number, entry(one)) for number, one in enumerate(made, first))


class Ledgers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def dump(self, history=None, heads=None, operations=(), statuses=None, tombstones=None, quarantine=(), present=(),
             user_roles=(), deployment_status=()):
        tables = {}
        if history is not None:
            tables = {"container_status_history": history, "ledger_heads": heads, "operation_logs": operations,
                      "ledger_quarantine": quarantine, "tenant_containers": present, "user_roles": user_roles,
                      "deployment_status": deployment_status}
        for name, rows in tables.items():
            with open(os.path.join(self.folder, f"{name}.jsonl"), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows or ())
        for name, objects in (("statuses", statuses), ("tombstones", tombstones)):
            if objects is not None:
                with open(os.path.join(self.folder, f"{name}.json"), "w", encoding="utf-8") as file:
                    json.dump({"items": objects}, file)

    def segments(self, *data, firsts=None, spool="w-0"):
        place = os.path.join(self.folder, "spools", spool, "_journal")
        os.makedirs(place, exist_ok=True)
        for index, one in enumerate(data):
            first = firsts[index] if firsts else 1
            with open(os.path.join(place, f"{first:020}.seg"), "wb") as file:
                file.write(one)

    def beside(self, acknowledged, spool="w-0"):
        with open(os.path.join(self.folder, "spools", spool, "_acknowledged"), "w", encoding="utf-8") as file:
            file.write(json.dumps({"acknowledged": acknowledged}) + "\n")

    def check(self, *more):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = check.main(["--dump", self.folder, "--json", *more])
        report = json.loads(output.getvalue())
        self.assertEqual(code, 1 if report["violations"] else 0)
        self.counts = report["counts"]
        return sorted({v["word"] for v in report["violations"]})

    def assert_words(self, *words, settled=False):
        self.assertEqual(self.check(*(["--settled"] if settled else [])), sorted(words))

    def good(self, made=None, **more):
        made = made or life()
        self.dump([history_row(one) for one in made], [head_row(made[-1])], **more)
        return made

    def altered(self, place, **columns):
        made = life()
        rows = [history_row(one) for one in made]
        rows[place].update(columns)
        self.dump(rows, [head_row(made[-1])])


class TheDatabase(Ledgers):
    def test_a_whole_life_passes(self):
        self.good(operations=[operation_row(phase("start")), operation_row(phase("finish"))], statuses=[])
        self.assert_words(settled=True)
        self.assertEqual(self.counts["records"], 7)

    def test_every_column_of_the_envelope_is_in_the_hash(self):
        for column, value in (("epoch", 8), ("at", 1), ("reason", "Other"), ("actor", "user:eve"), ("generation", 2),
                              ("operation_id", OPERATION), ("kind", "unobserved")):
            self.altered(1, **{column: value})
            self.assert_words("hash-differs")
        self.altered(2, from_state="pending")
        self.assert_words("from-differs", "hash-differs", "no-such-transition")
        self.altered(1, details={"message": "another"})
        self.assert_words("altered")
        self.altered(1, actor="user:\u202eann")
        self.assertIn("altered", self.check())

    def test_details_may_be_missing_and_are_counted(self):
        self.altered(1, details=None)
        self.assert_words()
        self.assertEqual(self.counts["without details"], 1)

    def test_a_record_that_is_taken_out_is_missed(self):
        made = life()
        self.dump([history_row(one) for one in made if one is not made[2]], [head_row(made[-1])])
        self.assert_words("predecessor-missing")

    def test_a_lost_record_names_the_gap(self):
        first = life()[:1]
        lost = record(9, None, "stopped", "e" * 64, kind="lost")
        after = record(10, "stopped", "deleted", digest(lost[0]))
        self.good([first[0], lost, after])
        self.assertEqual(self.check(), [])
        self.assertEqual(self.counts["gaps that are named"], 1)

    def test_heads(self):
        made = life()
        rows = [history_row(one) for one in made]
        self.dump(rows, [])
        self.assert_words("no-head")
        self.dump(rows, [head_row(made[2])])
        self.assert_words("head-behind")
        self.dump(rows, [head_row(made[3])])
        self.assert_words()
        self.assertEqual(self.counts["beyond their head"], 1)
        self.assert_words("head-behind", settled=True)
        other = record(3, "running", "failed", digest(made[1][0]), epoch=8)
        self.dump([*rows[:3], history_row(other)], [head_row(made[1])])
        self.assert_words()
        self.assertEqual(self.counts["beyond their head"], 2)
        self.assert_words("head-behind", settled=True)
        self.dump(rows[:-1], [head_row(made[-1])])
        self.assert_words("head-unknown")
        self.dump(rows, [{**head_row(made[-1]), "sequence": 4}])
        self.assert_words("head-differs")
        self.dump(rows, [head_row(made[-1], "stopped")])
        self.assert_words("head-differs")

    def test_a_branch_that_lost_is_counted_and_its_links_hold(self):
        made = life()[:2]
        other = record(2, "pending", "failed", digest(made[0][0]), epoch=8)
        self.dump([history_row(one) for one in [*made, other]], [head_row(made[-1])])
        self.assert_words()
        self.assertEqual(self.counts["superseded"], 1)
        other = record(3, "pending", "failed", digest(made[0][0]), epoch=8)
        self.dump([history_row(one) for one in [*made, other]], [head_row(made[-1])])
        self.assert_words("sequence-jumps")

    def test_the_lifecycle(self):
        for hops in ([(None, "running")], [(None, "pending"), ("pending", "paused")], [*LIFE, ("deleted", "pending")],
                     [(None, "pending"), ("pending", "pending")]):
            self.good(life(hops))
            self.assertIn("no-such-transition", self.check())
        self.good(life([*LIFE, ("deleted", "pending")]))
        self.assert_words("follows-the-end", "no-such-transition")
        self.good(life([(None, "pending"), ("running", "paused")]))
        self.assert_words("from-differs")
        self.good(life([(None, "pending"), ("pending", None)]))
        self.assert_words("no-state")

    def test_what_was_not_seen_may_end_anywhere(self):
        made = life()[:1]
        made.append(record(2, "pending", "paused", digest(made[0][0]), kind="unobserved"))
        made.append(record(3, None, "running", digest(made[1][0]), kind="resolution"))
        made.append(record(4, "running", "paused", digest(made[2][0])))
        self.good(made)
        self.assert_words()

    def test_a_life_without_states_has_an_end_and_no_other(self):
        def grant(*hops):
            made, prev = [], ZEROS
            for seq, (from_, to) in enumerate(hops, 1):
                made.append(record(seq, from_, to, prev, kind="grant"))
                prev = digest(made[-1][0])
            return made
        present = {"cluster_id": CLUSTER, "id": UID, "access": "removed", "deleted": True, "sequence": 3,
                   "namespace": "a", "name": "b"}
        self.good(grant((None, None), (None, None), (None, "deleted")), user_roles=[present])
        self.assert_words(settled=True)
        self.good(grant((None, None), (None, None), (None, "deleted")), user_roles=[{**present, "deleted": False}])
        self.assert_words("present-differs", settled=True)
        row = {"cluster_id": CLUSTER, "id": UID, "scope": "rollout", "outcome": "Complete", "deleted": True, "sequence": 3,
               "namespace": "a", "name": "b"}
        older = {**row, "outcome": "Superseded", "sequence": 1}
        target = {**row, "scope": "target", "deleted": False}
        self.good(grant((None, None), (None, None), (None, "deleted")), deployment_status=[row, older, target])
        self.assert_words(settled=True)
        self.good(grant((None, None), (None, None), (None, "deleted")), deployment_status=[older, target])
        self.assert_words("present-differs", settled=True)
        self.good(grant((None, "deleted"), (None, None)))
        self.assert_words("follows-the-end")
        self.good(grant((None, "running")))
        self.assert_words("no-such-transition")
        self.good([*life()[:2], record(3, "running", "deleted", digest(life()[1][0]), kind="rollout")])
        self.assert_words("no-such-transition")

    def test_beginnings(self):
        self.good([record(1, None, "pending", "a" * 64)])
        self.assert_words("bad-beginning", "predecessor-missing")
        self.good([record(2, None, "pending", ZEROS)])
        self.assert_words("bad-beginning")

    def test_a_phase_is_told_once(self):
        made = life()
        twice = [operation_row(phase("start")), operation_row(phase("start", at=5))]
        self.dump([history_row(one) for one in made], [head_row(made[-1])], operations=twice)
        self.assert_words("told-twice")

    def test_a_row_twice(self):
        made = life()
        rows = [history_row(one) for one in made]
        self.dump([*rows, rows[2]], [head_row(made[-1])])
        self.assert_words("duplicate")

    def test_what_was_refused_is_named_until_somebody_has_looked_at_it(self):
        row = {"cluster_id": CLUSTER, "uid": UID, "what": "record", "hash": "b" * 64, "error": "no", "open": True}
        self.good(quarantine=[row])
        self.assert_words("quarantined")
        self.assert_words("quarantined", settled=True)
        self.good(quarantine=[{**row, "open": False}])
        self.assert_words(settled=True)

    def test_settled_means_that_the_present_agrees(self):
        present = {"cluster_id": CLUSTER, "id": UID, "status": "deleted", "deleted": True, "sequence": 5,
                   "namespace": "a", "name": "b"}
        self.good(present=[present])
        self.assert_words(settled=True)
        self.good(present=[{**present, "sequence": 4}])
        self.assert_words("present-differs", settled=True)


class Statuses(Ledgers):
    def test_shown_is_the_head_or_one_behind(self):
        made = self.good(life()[:4])
        for shown, words in ((4, []), (3, []), (2, ["shown-behind"]), (0, ["shown-behind"])):
            self.dump(statuses=[status(made[shown - 1] if shown else None)])
            self.assert_words(*words)
        self.dump(statuses=[status(made[2])])
        self.assert_words("heads-differ", settled=True)

    def test_shown_and_nowhere(self):
        made = self.good(life()[:4])
        self.dump(statuses=[status(made[3], head="f" * 64)])
        self.assert_words("shown-unknown")
        self.dump(statuses=[status(made[3], sequence=9)])
        self.assert_words("shown-differs")
        odd = status(made[3])
        odd["status"]["phase"] = "Running"
        self.dump(statuses=[odd])
        self.assert_words("phase-differs")

    def test_pending_carries_what_the_database_lacks(self):
        made = life()[:4]
        self.good(made[:2])
        self.dump(statuses=[status(made[3], made[2:])])
        self.assert_words()
        self.assert_words("heads-differ", "not-in-database", "pending-left", settled=True)
        self.segments(journal(made))
        self.dump(statuses=[status(made[3], made[3:])])
        self.assert_words("not-carried")

    def test_pending_may_be_in_the_database_already(self):
        made = self.good(life()[:4])
        self.dump(statuses=[status(made[3], made[2:])])
        self.assert_words()
        self.assert_words("pending-left", settled=True)

    def test_malformed_pending(self):
        made = self.good(life()[:4])
        self.dump(statuses=[status(made[3], pending=[made[3], made[2]])])
        self.assert_words("pending-malformed")
        self.dump(statuses=[status(made[3], pending=())])
        odd = status(made[3])
        odd["status"]["ledger"]["pending"] = [" " + text(made[3][0]), "{}", "nonsense"]
        self.dump(statuses=[odd])
        self.assert_words("altered")
        odd["status"]["ledger"]["pending"] = [text(phase("start")[0])]
        self.dump(statuses=[odd])
        self.assertIn("misplaced", self.check())

    def test_shown_beside_the_line(self):
        made = life()[:3]
        other = record(3, "running", "failed", digest(made[1][0]), epoch=8)
        rows = [history_row(one) for one in [*made, other]]
        self.dump(rows, [head_row(made[-1])], statuses=[status(other)])
        self.assert_words("shown-superseded")
        # Not in the database yet: it comes, and the head follows it.
        self.dump(rows[:-1], [head_row(made[-1])], statuses=[status(other, [other])])
        self.assert_words()

    def test_an_object_that_is_gone_has_an_end(self):
        self.good(life()[:4], statuses=[])
        self.assert_words()
        self.assert_words("gone-without-an-end", settled=True)


class Tombstones(Ledgers):
    def test_one_that_carries_the_end(self):
        made = life()
        self.good(made[:3], statuses=[], tombstones=[tombstone(made[3:])])
        self.assert_words()
        self.assertEqual(self.counts["tombstones"], 1)
        self.assert_words("gone-without-an-end", "not-in-database", "tombstone-left", settled=True)

    def test_malformed_ones(self):
        made = life()
        good = tombstone(made[3:])
        for change in ({"terminal": digest(made[3][0])}, {"sequence": "4"}, {"epoch": "9"}, {"records": "[]"},
                       {"target": "{}"}, {"sequence": "x"}):
            odd = copy.deepcopy(good)
            odd["data"].update(change)
            self.good(made[:3], tombstones=[odd])
            self.assertIn("tombstone-malformed", self.check(), change)
        self.good(made[:2], tombstones=[tombstone(made[3:])])
        self.assert_words("predecessor-missing")
        odd = copy.deepcopy(good)
        odd["data"]["records"] = odd["data"]["records"].replace("step 5", "step 6")
        self.good(made[:3], tombstones=[odd])
        self.assert_words("altered")


class Journals(Ledgers):
    def test_the_checksum_is_castagnolis(self):
        self.assertEqual(check.crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(check.crc32c(b"1234", b"56789"), 0xE3069283)
        self.assertEqual(check.crc32c(b"123", b"456789"), 0xE3069283)

    def test_a_journal_byte_by_byte(self):
        # One literal, so that no helper can be wrong in the way that the checker is.
        literal = bytes.fromhex("42455254 4853504c 0100 1d00 0100000000000000 0300 772d30".replace(" ", ""))
        self.assertEqual(header()[:-4], literal)
        self.assertEqual(frame(1, b"{}")[:20].hex(), "ff4252fe" "01000000" "02000000" "0100000000000000")
        self.segments(journal(life()))
        self.assert_words()
        self.assertEqual(self.counts["entries of journals"], 5)

    def test_a_file_only_ledger_is_checked_by_its_journal(self):
        made = life()
        del made[2]
        self.segments(journal(made))
        self.assert_words("predecessor-missing")

    def test_segments_go_on_where_the_last_one_ended(self):
        made = life()
        first = journal(made[:2]) + frame(3, b"", 2)
        self.segments(first, journal(made[2:], 3), firsts=[1, 3])
        self.assert_words()
        self.segments(first, journal(made[2:], 4), firsts=[1, 4])
        os.remove(os.path.join(self.folder, "spools/w-0/_journal", f"{3:020}.seg"))
        self.assert_words("damage")

    def test_a_torn_end_at_every_byte_is_no_violation_and_costs_one_entry(self):
        made = life()[:3]
        whole, kept = journal(made), journal(made[:2])
        for length in range(len(kept) + 1, len(whole), 37):
            self.segments(whole[:length])
            self.assert_words()
            self.assertEqual((self.counts["torn ends"], self.counts["entries of journals"]), (1, 2))

    def test_every_flipped_bit_is_damage(self):
        made = life()[:3]
        data = journal(made)
        last = len(journal(made[:2]))
        for at in range(0, last, 29):
            for bit in (0, 7):
                odd = bytearray(data)
                odd[at] ^= 1 << bit
                self.segments(bytes(odd))
                self.assertIn("damage", self.check(), f"bit {bit} of byte {at}")

    def test_an_entry_that_is_no_record(self):
        made = life()[:1]
        odd = json.loads(entry(made[0]))
        for change, word in (({"hash": "a" * 64}, "hash-differs"), ({"details": "{}"}, "altered"),
                             ({"record": "{}"}, "altered"), ({"record": 5}, "damage"), ({"entry": "operation"}, "misplaced")):
            self.segments(header() + frame(1, json.dumps({**odd, **change}).encode()))
            self.assertIn(word, self.check())
        self.segments(header() + frame(1, b'{"entry":"later"}'))
        self.assert_words()
        self.assertEqual(self.counts["entries of an unknown kind"], 1)

    def test_settled_means_that_what_is_spooled_is_in_the_database(self):
        made = life()
        told = phase("start")
        self.good(made, operations=[operation_row(phase("start", at=9))])
        # Another account of the phase stands: this one is not kept.
        self.segments(journal([*made[2:], told], 900), firsts=[900])
        self.assert_words(settled=True)
        self.segments(journal([*made[2:], told, phase("finish")], 900), firsts=[900])
        self.assert_words("not-in-database", settled=True)
        self.good(made[:4], operations=[operation_row(told)])
        self.segments(journal(made[3:], 900), firsts=[900])
        self.assert_words()
        self.assert_words("not-in-database", settled=True)

    def test_what_a_status_or_a_tombstone_carried_is_read_from_the_tail(self):
        made = life()
        # Its details may not have survived.
        entries = [entry(made[0]), carried(made[3]), carried(made[4], details=None)]
        self.segments(header(900) + b"".join(frame(number, one) for number, one in enumerate(entries, 900)), firsts=[900])
        self.beside(902)
        self.good(made)
        self.assert_words(settled=True)
        self.assertEqual((self.counts["without details"], self.counts.get("entries of an unknown kind")), (1, None))
        self.good(made[:3])
        self.assert_words()
        self.assert_words("not-in-database", settled=True)
        self.assertEqual(self.counts["ahead of the database"], 2)
        # They are looked at like any other.
        for change, word in (({"hash": "a" * 64}, "hash-differs"), ({"details": "{}"}, "altered"), ({"record": 5}, "damage")):
            self.segments(header() + frame(1, carried(made[0], **change)))
            self.assertIn(word, self.check())
        self.segments(header() + frame(1, carried(phase("start"))))
        self.assertIn("misplaced", self.check())

    def test_every_spool_is_looked_at_and_one_loses_nothing_for_another(self):
        made = life()
        self.good(made, operations=[operation_row(phase("start"))])
        self.segments(journal([*made, phase("start")]))
        self.segments(journal([phase("start"), phase("finish")]), spool="w-1")
        self.assert_words("not-in-database", settled=True)
        self.good(made, operations=[operation_row(phase("start")), operation_row(phase("finish"))])
        self.assert_words(settled=True)

    def test_a_spooled_operation_that_was_refused_is_named_once(self):
        told = phase("start")
        row = {"cluster_id": CLUSTER, "uid": UID, "what": "operation", "hash": digest(told[0]), "error": "no", "open": True}
        self.segments(journal([told]))
        self.good(quarantine=[row])
        self.assert_words("quarantined", settled=True)
        # Whoever calls it looked at has to have brought it there.
        self.good(quarantine=[{**row, "open": False}])
        self.assert_words("not-in-database", settled=True)
        self.good(quarantine=[{**row, "open": False}], operations=[operation_row(told)])
        self.assert_words(settled=True)

    def test_beside_a_database_a_journal_has_gaps_and_its_order_says_nothing(self):
        made = life()
        late = [made[4], made[1], made[2], made[4]]
        self.segments(journal(late))
        self.beside(4)
        self.assert_words()
        # The only home of a ledger has all of it.
        os.remove(os.path.join(self.folder, "spools/w-0/_acknowledged"))
        self.assert_words("predecessor-missing")

    def test_thinned_samples_keep_the_numbers_of_what_follows(self):
        made = life()[:2]
        thinned = lambda count: frame(2, struct.pack("<Q", count), 3)
        usage = frame(6, b'{"entry":"usage","usage":{}}') + frame(7, b'{"entry":"mark"}')
        self.segments(header() + frame(1, entry(made[0])) + thinned(4) + usage + frame(8, entry(made[1])))
        self.assert_words()
        self.assertEqual((self.counts["samples thinned"], self.counts.get("entries of an unknown kind")), (4, None))
        self.segments(header() + frame(1, entry(made[0])) + thinned(3) + usage)
        self.assert_words("damage")
        self.segments(header() + frame(1, entry(made[0])) + thinned(0) + frame(2, entry(made[1])))
        self.assert_words("damage")

    def test_a_phase_told_twice_on_one_spool(self):
        self.segments(journal([phase("start"), phase("start", at=5)]))
        self.assert_words("told-twice")

    def test_readable_state_files(self):
        made = life()
        self.segments(journal(made))
        place = os.path.join(self.folder, "spools/w-0/a")
        os.makedirs(place)
        path = os.path.join(place, "tenant_a%5Fb_c.json")
        state = {"format": 1, "ledger": {"entry": 5, "sequence": 5, "head": digest(made[-1][0]), "epoch": 7},
                 "container": {"target": {"uid": UID}, "user": "a_b", "service_name": "c"}}

        def put(value):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(value, file)
        put(state)
        self.assert_words()
        put({**state, "ledger": {**state["ledger"], "head": "c" * 64}})
        self.assert_words("claim-unknown")
        put({**state, "container": {**state["container"], "user": "a"}})
        self.assert_words("claim-misnamed")
        put({})
        self.assert_words("claim-unreadable")


class Questions(unittest.TestCase):
    def test_the_vectors_are_canonical_records(self):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/ledger-vectors.json")
        with open(path, encoding="utf-8") as file:
            vectors = json.load(file, parse_float=str)["vectors"]
        checker = check.Checker()
        for vector in vectors:
            checker.text(vector["name"], vector["record"], vector["details"], vector["hash"])
        self.assertEqual([(v["where"], v["what"]) for v in checker.violations], [])
        self.assertEqual(len(checker.records), len(vectors))

    def test_what_cannot_be_answered_ends_with_2(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(check.main(["--no-database"]), 2)
            self.assertEqual(check.main(["--no-database", "--spool", "/nowhere"]), 2)
            self.assertEqual(check.main(["--no-database", "--statuses", "/nowhere"]), 2)
            self.assertEqual(check.main(["--dump", "/nowhere"]), 2)

    def test_for_people_no_control_character_reaches_the_terminal(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            check.print_for_people({"violations": [{"word": "altered", "where": "x", "what": "\x1b[2J", "uid": None,
                                                    "sequence": None, "hash": None}], "counts": {}})
        self.assertNotIn("\x1b", output.getvalue())


if __name__ == "__main__":
    unittest.main()
