package queue

import "rollcall/queue/chain"

// announcement is where Batch stands at a gap. The centre goes on behind lost
// records only once it has the gap record that names them, and that stands
// further on in the ledger, or in a later epoch.
type announcement struct {
	log   chain.LogID
	after chain.Seq
	step  int
}

// told names the gap record of a gap, so that it can be sent first.
type told struct {
	Log chain.LogID `json:"log"`
	Seq chain.Seq   `json:"seq"`
}

// announce says which gap record the uplink should send before what stands
// after a record; ok is false if the lines themselves are due. Asked again and
// again, it names each gap record in turn and then the lines: whichever was lost
// on the way goes again.
func (l *Ledger) announce(log chain.LogID, after chain.Seq) (by told, ok bool) {
	now := l.now()
	e := now.find(log)
	if e == nil {
		return by, false
	}
	var gaps []told
	for _, g := range e.Gaps {
		if after < g.To && g.From < e.next(after) && g.By != nil {
			gaps = append(gaps, *g.By)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(gaps) == 0 {
		l.announced = announcement{}
		return by, false
	}
	a := &l.announced
	if a.log != log || a.after != after {
		*a = announcement{log: log, after: after}
	}
	step := a.step % (len(gaps) + 1)
	a.step++
	if step == len(gaps) {
		return by, false
	}
	return gaps[step], true
}
