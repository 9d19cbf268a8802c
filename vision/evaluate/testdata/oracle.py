"""The statistics of this package once more, by definition and without haste.

Reads one JSON object from standard input: trials [[fold, same, score], ...],
fars, live and attack scores, and prints the figures as JSON. Plain Python,
written from the definitions (LFW view 2, ISO/IEC 19795-1), not from the Go code.
"""
import json
import math
import sys


def accuracy(trials, threshold):
    return sum((score >= threshold) == bool(same) for _, same, score in trials) / len(trials)


def folds(trials):
    each, thresholds = [], []
    for fold in sorted({t[0] for t in trials}):
        train = [t for t in trials if t[0] != fold]
        test = [t for t in trials if t[0] == fold]
        scores = sorted({t[2] for t in train})
        candidates = [(a + b) / 2 for a, b in zip(scores, scores[1:] + [1.0])]
        figures = [accuracy(train, c) for c in candidates]
        best = [c for c, f in zip(candidates, figures) if f == max(figures)]
        threshold = best[len(best) // 2]
        thresholds.append(threshold)
        each.append(accuracy(test, threshold))
    mean = sum(each) / len(each)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in each) / (len(each) - 1))
    return {"accuracy": mean, "deviation": deviation, "threshold": sum(thresholds) / len(thresholds)}


def rates(trials, threshold):
    mated = [s for _, same, s in trials if same]
    others = [s for _, same, s in trials if not same]
    return (sum(s >= threshold for s in others) / len(others), sum(s < threshold for s in mated) / len(mated))


def eer(trials):
    """Where the line FMR = FNMR cuts the polygon through all thresholds."""
    before = (1.0, 0.0)
    for threshold in sorted({s for _, _, s in trials})[1:] + [2.0]:
        after = rates(trials, threshold)
        if after[1] >= after[0]:
            for_, to = before[0] - before[1], after[0] - after[1]
            if for_ == to:
                return (after[0] + after[1]) / 2
            part = for_ / (for_ - to)
            return before[0] + part * (after[0] - before[0])
        before = after


def tar(trials, far):
    others = [s for _, same, s in trials if not same]
    if len(others) * far < 3:
        return None
    for threshold in sorted({s for _, _, s in trials}) + [2.0]:
        fmr, fnmr = rates(trials, threshold)
        if fmr <= far:
            return 1 - fnmr


def auc(live, attack):
    return sum((a < l) + 0.5 * (a == l) for l in live for a in attack) / len(live) / len(attack)


def clopper_pearson(errors, of):
    def tail(k, p):  # at most k
        return sum(math.comb(of, i) * p**i * (1 - p) ** (of - i) for i in range(k + 1))

    def solve(k, target):
        low, high = 0.0, 1.0
        for _ in range(100):
            p = (low + high) / 2
            low, high = (p, high) if tail(k, p) > target else (low, p)
        return low

    return [0.0 if errors == 0 else solve(errors - 1, 0.975), 1.0 if errors == of else solve(errors, 0.025)]


data = json.load(sys.stdin)
trials = data["trials"]
json.dump({
    "folds": folds(trials),
    "eer": eer(trials),
    "tar": [tar(trials, far) for far in data["fars"]],
    "auc": auc(data["live"], data["attack"]),
    "clopper_pearson": [clopper_pearson(k, n) for k, n in data["rates"]],
}, sys.stdout)
