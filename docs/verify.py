#!/usr/bin/env python3
"""Verifies exports of a Rollcall ledger: an independent reading of docs/record.md, and nothing else.

    verify.py [-trust ADMISSION.json] FILE...        exit status 0: every file is sound, 1: one is not

Needs Python 3.11 and python3-cryptography (Debian 12). It judges chain, heads, receipts and gaps; what the bodies
claim (a match without an enrolment) only `rollcall ledger verify` judges."""
import base64, datetime, hashlib, json, re, sys
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ENVELOPE = re.compile(r'\{"v":1,"log":"([A-Za-z0-9-]{1,64})/([A-Za-z0-9-]{1,64})","seq":([1-9]\d{0,18}),"prev":"([\w-]{43})",'
    r'"at":\{"wall":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|(?![+-]00:00)[+-]\d\d:\d\d))","boot":"[A-Za-z0-9-]{1,64}","up_ms":(?:0|-?[1-9]\d{0,17}),'
    r'"clock":"[a-z0-9_]+"(?:,"err_ms":-?[1-9]\d{0,17})?\},"type":"([a-z0-9_]+)","body":(?=\{)', re.A)
ACK = re.compile(r'(?:,"ack":\{"seq":(0|[1-9]\d{0,18}),"hash":"([\w-]{43})"\})?\}', re.A)

class Refused(Exception): pass

def need(holds, why):
    if not holds: raise Refused(why)

def unbase64(text):
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(base64.urlsafe_b64encode(raw).decode().rstrip("=") == text, "base64url is not strict")
    return raw

def plain(pairs):  # an object that can be read in one way only
    need(len(dict(pairs)) == len(pairs) and all(re.fullmatch("[a-z0-9_]+", k) for k, _ in pairs), "a name twice or not plain")
    return dict(pairs)

def opened(key, typ, jws):  # RFC 7515, RFC 8037: the key is never taken from the header
    head, payload, signature = jws.split(".")
    h = json.loads(unbase64(head))
    need(h["alg"] == "EdDSA" and h["typ"] == typ and "crit" not in h, "wrong kind of signature")
    key.verify(unbase64(signature), (head + "." + payload).encode())
    return json.loads(unbase64(payload), object_pairs_hook=plain)

class Log:
    def __init__(self, known):
        self.known, self.hash, self.first, self.last, self.signed, self.cut, self.missing, self.before = known, {0: "A" * 43}, [], 0, 0, 0, [], None
        self.heads, self.sealed = {}, {}  # by the first record of a stretch: last signed; last sealed and when

    def seal(self, r):
        if r["seq"] not in self.hash: return  # in a gap
        need(self.hash[r["seq"]] == r["hash"], "record %d is not what the centre stored" % r["seq"])
        start = self.start(r["seq"])
        if start and r["seq"] > self.sealed.get(start, (0,))[0]: self.sealed[start] = (r["seq"], r["at"])

    def start(self, seq): return max([f for f in self.first if f <= seq], default=None)

    def __str__(self):
        span = lambda a, b: str(a) if a == b else "%d-%d" % (a, b)
        parts, after = (["let go " + span(1, self.cut)] if self.cut else []), self.cut + 1
        for i, first in enumerate(self.first):
            last = max(s for s in self.hash if s < (self.first + [self.last + 1])[i + 1])
            if first > after: parts.append("gap " + span(after, first - 1))
            sealed, at = self.sealed.get(first, (0, ""))
            known = max(sealed, self.heads.get(first, 0))
            if known: parts.append("verified " + span(first, known))
            if sealed: parts.append("sealed to %d at %s (centre)" % (sealed, at))
            if sealed < known: parts.append("own word " + span(max(sealed + 1, first), known))
            if known < last: parts.append("no signature " + span(max(known + 1, first), last))
            after = last + 1
        return "; ".join(parts + ([] if self.known else ["key taken from the file itself"]))

def verify(lines, ca, receipt_key):
    logs, log, key, terminal, early, openings = {}, None, None, None, [], []
    for line in lines:
        if line.startswith('{"certificate":'):
            cert = x509.load_der_x509_certificate(base64.b64decode(json.loads(line)["certificate"]))
            key, name = cert.public_key(), {a.oid._name: a.value for a in cert.subject}
            terminal = name["commonName"]
            if ca:
                need(cert.issuer == ca.subject and name["organizationalUnitName"] == "ledger", "not a ledger's certificate")
                how = [ec.ECDSA(cert.signature_hash_algorithm)] if isinstance(ca.public_key(), ec.EllipticCurvePublicKey) else []
                ca.public_key().verify(cert.signature, cert.tbs_certificate_bytes, *how)
        elif line.startswith("{"):
            m = ENVELOPE.match(line)
            body, end = json.JSONDecoder(object_pairs_hook=plain, parse_constant=lambda _: need(False, "no number")).raw_decode(line, m.end())
            need(not re.search(r"[ \t]", re.sub(r'"(?:[^"\\]|\\.)*"', "", line)), "spaces")
            datetime.datetime.fromisoformat(m[5])
            ack, seq, prev, name = ACK.fullmatch(line, end), int(m[3]), m[4], m[1] + "/" + m[2]
            need(len(line.encode()) <= 16384 and len(unbase64(prev)) == 32 and m[1] == terminal, "of another terminal, or too long")
            if log is None or name != log.name:
                need(name not in logs, "a log begins twice")
                log = logs[name] = Log(ca is not None)
                log.name = name
                for r in openings + early:  # the records before it were let go against a receipt
                    if r["log"] == name and log.cut < r["seq"] < seq: log.cut = log.last = log.signed = r["seq"]; log.hash[log.cut] = r["hash"]
            need(seq > log.last, "record %d stands again" % seq)
            if seq == log.last + 1: need(prev == log.hash[log.last], "record %d does not name the line before it" % seq)
            else: need(not log.first or log.hash[log.last] != prev, "a number was changed"); log.missing.append((log.last + 1, seq - 1))
            if seq > log.last + 1 or not log.first: log.first.append(seq)
            if ack[1]: need(int(ack[1]) < seq and log.hash.get(int(ack[1]), ack[2]) == ack[2], "record %d names a receipt that does not fit" % seq)
            if m[6] == "gap":
                a, b = body["from"], body["to"]
                need(type(a) is type(b) is int and 1 <= a <= b < seq, "a gap record that names no records")
                log.missing = [g for m in log.missing for g in ((m[0], min(m[1], a - 1)), (max(m[0], b + 1), m[1])) if g[0] <= g[1]]
            if seq == 1 and m[6] == "open": log.before = body.get("last")
            log.last = seq
            log.hash[seq] = base64.urlsafe_b64encode(hashlib.sha256(line.encode()).digest()).decode().rstrip("=")
        elif json.loads(unbase64(line.split(".")[0]))["typ"] == "rollcall-receipt":
            early.append(opened(receipt_key, "rollcall-receipt", line) if receipt_key else json.loads(unbase64(line.split(".")[1])))
        else:
            h = opened(key, "rollcall-head", line)
            need(h["log"].split("/")[0] == terminal, "a head for another terminal")
            l = logs.get(h["log"])
            if not l: openings.append(h); continue
            need(h["seq"] <= l.last and l.hash.get(h["seq"], h["hash"]) == h["hash"], "a head does not fit")
            if h["seq"] in l.hash:
                l.signed, start = max(l.signed, h["seq"]), l.start(h["seq"])
                l.heads[start] = max(l.heads.get(start, 0), h["seq"])
    need(logs, "no record")
    for r in early if receipt_key else []:
        need(r["log"] in logs and r["seq"] <= logs[r["log"]].last, "records up to %d are missing" % r["seq"])
        logs[r["log"]].seal(r)
    need(all(h["log"] in logs for h in openings), "a head signs for a log that is missing")
    for l in logs.values():
        need(not (l.cut and ca) or any(r["log"] == l.name and l.cut <= r["seq"] and r["seq"] in l.hash for r in early), "no receipt lets the first records go")
        need(not l.missing, "records are missing: %s" % l.missing[:1])
        need(l.signed >= l.last, "no head covers record %d" % (l.signed + 1))
        if (b := l.before) and b["log"] in logs and b["log"] != l.name:
            need(b["seq"] <= logs[b["log"]].last and logs[b["log"]].hash.get(b["seq"], b["hash"]) == b["hash"], "the epoch before does not end so")
    return logs

def main(args):
    ca = receipt_key = None
    if args[:1] == ["-trust"]:
        admission, args = json.load(open(args[1])), args[2:]
        ca = x509.load_pem_x509_certificate(admission["ca"].encode())
        receipt_key = serialization.load_pem_public_key(admission["receipt_key"].encode())
    sound = True
    for file in args:
        try:
            text = open(file, "rb").read().decode()  # strict UTF-8
            for l in verify(text.removesuffix("\n").split("\n"), ca, receipt_key).values(): print("%s: %s: %s" % (file, l.name, l))
        except Exception as why:  # whatever cannot be read as record.md says is refused
            sound = print("%s: not sound: %s" % (file, str(why) or type(why).__name__))
    return 0 if sound else 1

if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
