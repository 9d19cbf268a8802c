package chain

import "cmp"

// Agree compares two files that verified. It returns a [*Problem] for the first
// record that they hold with other bytes: two boxes went on with one identity,
// or the ledger was written anew; and for an epoch of one that does not fit
// the end of the epoch before it in the other.
func (v *Verifier) Agree(other *Verifier) error {
	for _, l := range v.logs {
		if o := other.find(l.log); o != nil {
			if err := l.agree(o); err != nil {
				return err
			}
		}
	}
	return cmp.Or(v.linked(other), other.linked(v))
}

// Holds compares with an earlier file of the same ledger, which verified: each
// of its records must be in this one too. It returns a [*Problem] for the
// first that is missing or has other bytes.
func (v *Verifier) Holds(earlier *Verifier) error {
	if err := v.Agree(earlier); err != nil {
		return err
	}
	for _, e := range earlier.logs {
		l := v.find(e.log)
		if l == nil {
			l = &verified{log: e.log}
		}
		if l.last < e.last {
			return l.problem(l.last+1, "is missing: the earlier file goes on to record %d", e.last)
		}
		for _, r := range e.runs {
			for seq := r.First; seq <= r.Last; seq++ {
				if _, read := l.hashAt(seq); !read && seq > l.cut {
					return l.problem(seq, "is missing: the earlier file holds it")
				}
			}
		}
	}
	return nil
}

func (l *verified) agree(o *verified) error {
	for _, r := range l.runs {
		for i, h := range r.hashes {
			seq := r.First + Seq(i)
			if other, read := o.hashAt(seq); read && other != h {
				return l.problem(seq, "has other bytes in the other file: two boxes went on as one, or it was written anew")
			}
		}
	}
	return nil
}

// linked checks what the first lines of v's logs say of logs that other holds.
func (v *Verifier) linked(other *Verifier) error {
	for _, l := range v.logs {
		if l.before == nil {
			continue
		}
		o := other.find(l.before.Log)
		if o == nil || o == l {
			continue
		}
		if l.before.Seq > o.last {
			return o.problem(o.last+1, "is missing: the epoch after it, %s, names record %d", l.log, l.before.Seq)
		}
		if l.placeAt(1) < o.placeAt(l.before.Seq+1) && v.makes(checkKeys) {
			return l.problem(1, "is signed by a retired key: the epoch that it goes on from ended with another")
		}
		if h, read := o.hashAt(l.before.Seq); read && h != l.before.Hash {
			return l.problem(1, "names another record %d of %s than stands there", l.before.Seq, o.log)
		}
	}
	return nil
}
