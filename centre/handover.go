package centre

import (
	"context"
	"errors"
	"fmt"

	"rollcall/queue/chain"
)

// ledgerKeys is what the centre knows of the keys that sign a terminal's ledger.
type ledgerKeys struct {
	ring   *chain.Ring
	told   map[chain.LogID][]chain.Seq // of each log: after which record each key came in force, 0: it began with it
	newest int                         // place of the last key that a stored record tells of
}

// ledgerKeys reads the keys that sign a terminal's heads and alerts. Handovers of
// no log were in hand when records came that needed them, and no record tells
// since when they count.
func (c *Centre) ledgerKeys(ctx context.Context, q querier, known terminal) (k ledgerKeys, err error) {
	cert, err := chain.ParseCertificate(known.Ledger)
	if err != nil {
		return k, err
	}
	key, err := c.keys.trust().LedgerKey(cert, known.ID)
	if err != nil {
		return k, err
	}
	if k.ring, err = chain.NewRing(known.ID, key); err != nil || !known.handedOver {
		return k, err
	}
	k.told = map[chain.LogID][]chain.Seq{}
	rows, err := q.QueryContext(ctx, "SELECT log, seq, jws FROM handovers WHERE terminal = $1 ORDER BY id", string(known.ID))
	if err != nil {
		return k, err
	}
	defer rows.Close()
	for rows.Next() {
		var log chain.LogID
		var seq chain.Seq
		var jws string
		if err := rows.Scan(&log, &seq, &jws); err != nil {
			return k, err
		}
		if err := k.ring.Follow(jws); err != nil {
			return k, fmt.Errorf("stored handover of %s: %w", known.ID, err)
		}
		if log != "" {
			k.told[log] = append(k.told[log], seq)
			k.newest = max(k.newest, len(k.told[log]))
		}
	}
	return k, rows.Err()
}

// before is the place of the key in force before a record, as far as stored
// records tell.
func (k ledgerKeys) before(log chain.LogID, seq chain.Seq) (place int) {
	for _, told := range k.told[log] {
		if told < seq {
			place++
		}
	}
	return place
}

// signer checks who signed a batch: the terminal, with a key that it may still
// use.
func (in *intake) signer(k ledgerKeys) error {
	in.keys, in.knew = k, k.ring.Last()
	turns, by, err := in.batch.Check(k.ring, k.before(in.batch.Log(), in.batch.First()))
	in.turns, in.by = turns, by
	return err
}

// distrust is the alarm for a batch whose signature does not hold.
func (in *intake) distrust(why error) *alarm {
	a := &alarm{kind: AlarmRefused, log: in.batch.Log(), seq: in.batch.First(), detail: why.Error()}
	if errors.Is(why, chain.ErrRetired) {
		a.kind, a.detail = AlarmKey, a.detail+retiredAdvice
	}
	return a
}

const retiredAdvice = ": an old disk or old keys were put back, or somebody has a copy of the old key. " +
	"If this is the right box, admit it anew under another id"

// retired reports that a key signs what is new although another has followed it.
func (k ledgerKeys) retired(by int) error {
	if by >= k.newest {
		return nil
	}
	return fmt.Errorf("the key %s was handed over to %s: %w", k.ring.ID(by), k.ring.ID(by+1), chain.ErrRetired)
}

// handoverRows are the handovers that a group brings: those that its records
// tell of, and those that came without a record.
func handoverRows(group []*intake) []rows {
	var terminals, logs, handovers []string
	var seqs []int64
	for _, in := range group {
		known := in.keys.ring.Handovers()
		place := in.keys.before(in.batch.Log(), in.batch.First())
		put := func(log chain.LogID, seq chain.Seq, jws string) {
			terminals, logs = append(terminals, string(in.terminal)), append(logs, string(log))
			seqs, handovers = append(seqs, int64(seq)), append(handovers, jws)
		}
		for _, turn := range in.turns {
			for ; place < turn.Place; place++ {
				put(in.batch.Log(), turn.Seq, known[place])
			}
		}
		for at := max(in.knew, place); at < len(known); at++ {
			put("", 0, known[at])
		}
	}
	if len(handovers) == 0 {
		return nil
	}
	return []rows{{"handovers", []column{{"terminal", "text", terminals}, {"log", "text", logs}, {"seq", "bigint", seqs}, {"jws", "text", handovers}},
		"ON CONFLICT DO NOTHING"}}
}
