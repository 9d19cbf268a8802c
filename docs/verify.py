#!/usr/bin/env python3
"""verify.py [-trust ADMISSION.json] FILE...  verifies exports of a Rollcall ledger: a second reading of docs/record.md.
Exit status 0: every file is sound, 1: one is not. Needs Python 3.11 and python3-cryptography (Debian 12). It judges hashes,
signatures, cuts and gaps. That a line has its one form, and what bodies claim, only `rollcall ledger verify` judges."""
import base64, hashlib, json, sys
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

def need(holds, why):
    if not holds: raise ValueError(why)
def raw64(text): return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
def text64(raw): return base64.urlsafe_b64encode(raw).decode().rstrip("=")
def span(a, b): return str(a) if a == b else "%d-%d" % (a, b)

def opened(key, jws):  # RFC 7515, RFC 8037; the key is never taken from the header
    head, payload, signature = jws.split(".")
    h = json.loads(raw64(head))
    need(h["alg"] == "EdDSA" and "crit" not in h and text64(raw64(signature)) == signature, "not a signature")
    if key: key.verify(raw64(signature), (head + "." + payload).encode())
    return json.loads(raw64(payload))

class Log:
    def __init__(l, cut):  # a run is [first, last, signed, sealed, when]; missing are pairs that no gap record names yet
        l.cut = l.last = l.signed = cut["seq"]
        l.hash, l.runs, l.missing, l.before = {0: "A" * 43, l.cut: cut["hash"]}, [], [], None
    def holds(l, m): return l.hash.get(m["seq"], m["hash"]) == m["hash"]
    def run(l, seq): return next((r for r in l.runs if r[0] <= seq <= r[1]), [0, 0, 0, 0, ""])
    def add(l, e, line):
        seq, gap = e["seq"], e["body"] if e["type"] == "gap" else {"from": 1, "to": 0}
        need(seq > l.last and e["v"] == 1, "record %d stands again" % seq)
        need((e["prev"] == l.hash[l.last]) == (seq == l.last + 1) or not l.runs and l.last + 1 < seq, "record %d does not follow" % seq)
        need("ack" not in e or e["ack"]["seq"] < seq and l.holds(e["ack"]), "record %d names a receipt that does not fit" % seq)
        if seq > l.last + 1: l.missing.append((l.last + 1, seq - 1))
        if seq > l.last + 1 or not l.runs: l.runs.append([seq, seq, 0, 0, ""])
        need(e["type"] != "gap" or 1 <= gap["from"] <= gap["to"] < seq, "a gap record that names no records")
        l.missing = [g for a, b in l.missing for g in ((a, min(b, gap["from"] - 1)), (max(a, gap["to"] + 1), b)) if g[0] <= g[1]]
        if seq == 1 and e["type"] == "open": l.before = e["body"].get("last")
        l.last = l.runs[-1][1] = seq
        l.hash[seq] = text64(hashlib.sha256(line.encode()).digest())
    def __str__(l):
        parts, after = ["let go " + span(1, l.cut)] if l.cut else [], l.cut + 1
        for first, last, signed, sealed, at in l.runs:
            known = max(signed, sealed)
            if first > after: parts.append("gap " + span(after, first - 1))
            if known: parts.append("verified " + span(first, known))
            if sealed: parts.append("sealed to %d at %s (centre)" % (sealed, at))
            if sealed < known: parts.append("own word " + span(max(sealed + 1, first), known))
            if known < last: parts.append("no signature " + span(max(known + 1, first), last))
            after = last + 1
        return "; ".join(parts)

def verify(lines, ca, receipt_key):
    logs, key, terminal, name, receipts, heads, cuts = {}, None, None, None, [], [], [{"log": None, "seq": 0, "hash": "A" * 43}]
    for line in lines:
        if line.startswith('{"certificate":'):
            cert = x509.load_der_x509_certificate(base64.b64decode(json.loads(line)["certificate"]))
            key, subject = cert.public_key(), {a.oid._name: a.value for a in cert.subject}
            terminal = subject["commonName"]
            if ca:
                need(cert.issuer == ca.subject and subject["organizationalUnitName"] == "ledger", "not a ledger's certificate")
                how = [ec.ECDSA(cert.signature_hash_algorithm)] if isinstance(ca.public_key(), ec.EllipticCurvePublicKey) else []
                ca.public_key().verify(cert.signature, cert.tbs_certificate_bytes, *how)
        elif line.startswith("{"):
            e = json.loads(line)
            need(e["log"].split("/")[0] == terminal and (e["log"] == name or e["log"] not in logs), "another terminal's, or a log begins twice")
            if e["log"] != name:
                name = e["log"]
                logs[name] = Log(max((c for c in cuts if c["log"] in (None, name) and c["seq"] < e["seq"]), key=lambda c: c["seq"]))
            logs[name].add(e, line)
        elif (typ := json.loads(raw64(line.split(".")[0]))["typ"]) == "rollcall-receipt": receipts.append(opened(receipt_key, line))
        else:
            h = opened(key, line)
            need(key and h["log"].split("/")[0] == terminal and typ in ("rollcall-head", "rollcall-cut"), "not this terminal's")
            if typ == "rollcall-cut": cuts.append(h)
            elif h["log"] not in logs: heads.append(h["log"])
            else:
                l, run = logs[h["log"]], logs[h["log"]].run(h["seq"])
                need(h["seq"] <= l.last and l.holds(h), "a head does not fit")
                if run[0]: run[2] = max(run[2], h["seq"]); l.signed = max(l.signed, h["seq"])
    need(logs and all(h in logs for h in heads), "no record, or a head signs for a log that is missing")
    for r in receipts if receipt_key else []:
        l, run = logs[r["log"]], logs[r["log"]].run(r["seq"])
        need(r["seq"] <= l.last and l.holds(r), "record %d is missing, or not what the centre stored" % r["seq"])
        if run[3] < r["seq"]: run[3:] = r["seq"], r["at"]
    for name, l in logs.items():
        need(not (l.cut and ca) or any(r["log"] == name and r["seq"] >= l.cut for r in receipts), "no receipt lets the first records go")
        need(not l.missing and l.signed >= l.last, "records are missing, or no head covers the last")
        if (b := l.before) and (o := logs.get(b["log"], l)) is not l: need(b["seq"] <= o.last and o.holds(b), "it does not follow the epoch before")
    return ["%s: %s%s" % (name, l, "" if ca else "; key taken from the file itself") for name, l in logs.items()]

def main(args):
    ca = receipt_key = None
    if args[:1] == ["-trust"]:
        admission, args = json.load(open(args[1])), args[2:]
        ca = x509.load_pem_x509_certificate(admission["ca"].encode())
        receipt_key = serialization.load_pem_public_key(admission["receipt_key"].encode())
    status = 0
    for file in args:
        try:
            for said in verify(open(file, "rb").read().decode().removesuffix("\n").split("\n"), ca, receipt_key): print(file, said, sep=": ")
        except Exception as why:  # whatever cannot be read as record.md says is refused
            status = 1
            print("%s: not sound: %s" % (file, str(why) or type(why).__name__))
    return status
if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
