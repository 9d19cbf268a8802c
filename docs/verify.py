#!/usr/bin/env python3
"""verify.py [-trust ADMISSION.json] FILE...  verifies exports of a Rollcall ledger: a second reading of docs/record.md.
Exit status 0: every file is sound, 1: one is not. Needs Python 3.11 and python3-cryptography (Debian 12). It judges hashes,
signatures, cuts and gaps. That a line has its one form, and what bodies claim, only `rollcall ledger verify` judges."""
import base64, hashlib, json, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

def need(holds, why):
    if not holds: raise ValueError(why)
def text64(raw): return base64.urlsafe_b64encode(raw).decode().rstrip("=")
def raw64(text):
    raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    need(text64(raw) == text, "not base64url")
    return raw
def header(jws): return json.loads(raw64(jws.split(".")[0]))
def opened(key, jws):  # RFC 7515; the algorithm is the key's own, never the header's: RFC 8037 for Ed25519, RFC 7518 for P-256
    (_, payload, sig), p256 = map(raw64, jws.split(".")), isinstance(key, ec.EllipticCurvePublicKey)
    h, signed = header(jws), jws.rpartition(".")[0].encode()
    need("crit" not in h and len(sig) == 64 and (not key or h["alg"] == ("ES256" if p256 else "EdDSA")), "not a signature")
    dss = lambda: utils.encode_dss_signature(int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big"))
    if key: key.verify(dss(), signed, ec.ECDSA(hashes.SHA256())) if p256 else key.verify(sig, signed)
    return json.loads(payload)
def certified(der, ca):
    cert = x509.load_der_x509_certificate(der)
    who = {a.oid._name: a.value for a in cert.subject}
    how = [ec.ECDSA(hashes.SHA256())] if ca and isinstance(ca.public_key(), ec.EllipticCurvePublicKey) else []
    if ca: ca.public_key().verify(cert.signature, cert.tbs_certificate_bytes, *how)
    need(not ca or cert.issuer == ca.subject and who["organizationalUnitName"] == "ledger", "not a ledger's certificate")
    return cert.public_key(), who["commonName"]

def kid(key): return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]
def follow(ring, terminal, jws):  # a ring is the terminal's keys by their ids, in the order in which they were in force
    h, by = opened(ring[header(jws)["kid"]], jws), list(ring).index(header(jws)["kid"])
    need(header(jws)["typ"] == "rollcall-key" and h["terminal"] == terminal, "not this terminal's handover")
    key = serialization.load_der_public_key(base64.b64decode(h["key"]))
    if by + 1 == len(ring) and kid(key) not in ring: ring[kid(key)] = key
    need(list(ring).index(kid(key)) == by + 1, "a handover leads to another key than the one known")
def keyed(ring, terminal, e, place, sure):  # the places of the keys in force at a record and after it; sure if none can be between
    body, jws = e["body"], e["body"].get("handovers", [])
    if e["type"] == "open" and e["seq"] == 1 and body.get("key"):
        for h in jws: follow(ring, terminal, h)
        need(list(ring).index(body["key"]) == len(jws), "the handovers of record 1 do not lead to its key")
        return len(jws), len(jws), True
    if e["type"] != "key": return place, place, sure
    old = list(ring).index(body["old"])
    need(old == place or old > place and not sure, "record %d changes a key that is not in force" % e["seq"])
    need(header(body["handover"])["kid"] == body["old"], "record %d is not by the key in force" % e["seq"])
    follow(ring, terminal, body["handover"])
    need(list(ring).index(body["new"]) == old + 1, "record %d names another key than its handover" % e["seq"])
    return old, old + 1, True

def verify(lines, ca, receipt_key):
    ring, terminal, name, logs, heads, cuts, receipts, ahead, places, named = {}, None, None, {}, [], [], [], [], {}, []
    for line in lines:
        if line.startswith('{"certificate":'):
            key, terminal = certified(base64.b64decode(json.loads(line)["certificate"]), ca)
            if next(iter(ring), "") != kid(key): ring = {kid(key): key}
        elif line.startswith("{"):
            e = json.loads(line)
            need(ring and e["v"] == 1 and e["log"].split("/")[0] == terminal, "a record is not this terminal's")
            need(e["log"] == name or e["log"] not in logs, "a log begins twice")
            records = logs.setdefault(name := e["log"], {})
            need(e["seq"] > (last := next(reversed(records), 0)), "record %d stands in a wrong place" % e["seq"])
            at, now, sure = places.get(name, ({}, 0, True))
            at[e["seq"]], now, sure = keyed(ring, terminal, e, now, sure and e["seq"] == last + 1)
            at[e["seq"] + 1] = now
            places[name] = at, now, sure
            records[e["seq"]] = e, text64(hashlib.sha256(line.encode()).digest())
            if e["type"] == "gap":
                a, b, of = e["body"]["from"], e["body"]["to"], e["body"].get("log") or name
                need(1 <= a <= b and of.split("/")[0] == terminal and (of != name or b < e["seq"]), "record %d names no gap" % e["seq"])
                named += [(of, a, b)] * (of in logs)
        else:
            typ, by = header(line)["typ"], header(line)["kid"]
            if typ == "rollcall-key": follow(ring, terminal, line); continue
            mark = opened(receipt_key if typ == "rollcall-receipt" else ring[by], line) | {"by": [*ring, by].index(by)}
            need(mark["log"].split("/")[0] == terminal, "a signature is for another terminal")
            need(typ in ("rollcall-head", "rollcall-cut", "rollcall-receipt"), "a signature for something else")
            read = logs.get(mark["log"], {})  # a head stands after its record, a cut before its log, a receipt anywhere
            need(typ != "rollcall-head" or mark["seq"] <= next(reversed(read), mark["seq"]), "a head stands before its record")
            if typ == "rollcall-receipt": receipts += [mark] * bool(receipt_key)
            elif typ == "rollcall-cut": cuts += [mark] * (not read)
            else: (heads if read else ahead).append(mark)
    need(logs and all(m["log"] in logs for m in receipts + ahead), "no record, or a log is missing")
    opens = [(log, r[1][0]["body"].get("last")) for log, r in logs.items() if 1 in r and r[1][0]["type"] == "open"]
    opens = [(log, link) for log, link in opens if link and link["log"] != log]
    def place(log, seq):
        at = places[log][0]
        return at[seq] if seq in at else next((p for s, p in reversed(at.items()) if s <= seq), 0)
    need(all(l["log"] not in logs or place(log, 1) >= place(l["log"], l["seq"] + 1) for log, l in opens), "a log falls back to a retired key")
    for name, records in logs.items():
        first, last, of = min(records), max(records), lambda marks: [m for m in marks if m["log"] == name]
        cut = max((c for c in of(cuts) if c["seq"] < first), key=lambda c: c["seq"], default={"seq": 0, "hash": "A" * 43})
        hash = {0: "A" * 43, cut["seq"]: cut["hash"]} | {seq: h for seq, (_, h) in records.items()}
        fits = lambda mark, last: mark["seq"] <= last and hash.get(mark["seq"], mark["hash"]) == mark["hash"]
        runs, gaps, covered = [], [(a, b) for log, a, b in named if log == name and a <= last], cut["seq"]
        for seq, (e, _) in records.items():
            need(hash.get(seq - 1, e["prev"]) == e["prev"], "record %d does not follow" % seq)
            need("ack" not in e or fits(e["ack"], seq - 1), "record %d names a receipt that does not fit" % seq)
            runs = runs[:-1] + [(runs[-1][0], seq)] if runs and runs[-1][1] == seq - 1 else runs + [(seq, seq)]
        for a, b in sorted(runs + gaps):
            need(a <= covered + 1, "record %d is missing" % (covered + 1))
            covered = max(covered, b)
        need(all(fits(m, last) for m in of(heads + receipts + [link for _, link in opens])), "a signature, or a later epoch, names another line, or a missing one")
        need(any(h["seq"] == last for h in of(heads)), "no head covers the last record")
        need(all(h["by"] >= place(name, h["seq"]) for h in of(heads)), "a retired key signed a head")
        need(not (ca and cut["seq"]) or any(r["seq"] >= cut["seq"] for r in of(receipts)), "no receipt lets the first records go")
        top = lambda marks, a, b: max((m["seq"] for m in of(marks) if a <= m["seq"] <= b), default=0)
        yield name + ": " + "; ".join("%d-%d, signed to %d, sealed to %d" % (a, b, top(heads, a, b), top(receipts, a, b)) for a, b in runs) + \
              "; key taken from the file itself" * (not ca)

ca = receipt_key = None
args, status = sys.argv[1:], 0
if args[:1] == ["-trust"]:
    admission, args = json.load(open(args[1])), args[2:]
    ca = x509.load_pem_x509_certificate(admission["ca"].encode())
    receipt_key = serialization.load_pem_public_key(admission["receipt_key"].encode())
for file in args:
    try: said = list(verify(open(file, "rb").read().decode().removesuffix("\n").split("\n"), ca, receipt_key))
    except Exception as why: status, said = 1, ["not sound: %s" % (str(why) or type(why).__name__)]  # what cannot be read is refused
    for line in said: print(file, line, sep=": ")
sys.exit(status)
