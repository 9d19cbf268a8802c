package centre_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// nextKey makes the ledger key that follows, as a file or a TPM has it.
func nextKey(t testing.TB, tpm bool) crypto.Signer {
	t.Helper()
	if tpm {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return key
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

// handOver forms the key record, signed by the key in force, and goes on with
// the next.
func (b *box) handOver(t testing.TB, next crypto.Signer) (batch []byte) {
	t.Helper()
	jws, err := chain.SignHandover(b.ledger, b.id, next.Public())
	require.NoError(t, err)
	batch = b.batch(t, b.append(t, attendance.NewRecord(attendance.TypeKey, attendance.KeyBody{
		Old: chain.KeyID(b.ledger.Public()), New: chain.KeyID(next.Public()), Handover: jws,
	})))
	b.ledger, b.handovers = next, append(b.handovers, jws)
	return batch
}

// openBy is line 1 of an epoch that begins with the key in force.
func (b *box) openBy(reason string) attendance.Record {
	return attendance.NewRecord(attendance.TypeOpen, attendance.OpenBody{
		Reason: reason, Terminal: string(b.id), Software: "test", Key: chain.KeyID(b.ledger.Public()), Handovers: b.handovers,
	})
}

// with puts handovers into a batch, before its head.
func (b *box) with(t testing.TB, lines [][]byte) []byte {
	return chain.FormBatch(lines, head(t, b.ledger, lines[len(lines)-1]), b.handovers...)
}

// bundle reads the export of a log with both verifiers.
func bundle(t *testing.T, d *desk, b *box, log chain.LogID) string {
	t.Helper()
	status, text := d.do("GET", "/v1/logs/"+string(log)+"/bundle", nil)
	require.Equal(t, 200, status)
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	epochs, err := verifyExport(trust, []byte(text))
	require.NoError(t, err)
	dir := t.TempDir()
	admission, err := json.Marshal(b.admission)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "admission.json"), admission, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bundle"), []byte(text), 0o600))
	out, err := exec.Command("python3", "../docs/verify.py", "-trust", filepath.Join(dir, "admission.json"), filepath.Join(dir, "bundle")).CombinedOutput()
	require.NoError(t, err, "docs/verify.py: %s", out)
	return epochs[0].String()
}

// A terminal that changes its key is followed, by keys of both kinds, and what
// it sends again by its earlier keys is known.
func TestChangedKeyIsFollowed(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		batches := [][]byte{b.batch(t, b.append(t, b.openBy("new"), checkin("p-1")))}
		batches = append(batches, b.handOver(t, nextKey(t, true)))
		batches = append(batches, b.batch(t, b.append(t, checkins(2)...)))
		// one batch goes past a change
		before := b.ledger
		next := nextKey(t, false)
		jws, err := chain.SignHandover(before, b.id, next.Public())
		require.NoError(t, err)
		lines := b.append(t, checkin("p-1"), attendance.NewRecord(attendance.TypeKey, attendance.KeyBody{
			Old: chain.KeyID(before.Public()), New: chain.KeyID(next.Public()), Handover: jws,
		}), checkin("p-2"))
		b.ledger, b.handovers = next, append(b.handovers, jws)
		batches = append(batches, b.batch(t, lines), b.batch(t, b.append(t, checkin("p-3"))))
		for range 2 { // and all of it once more
			for _, batch := range batches {
				ingest(t, c, b, batch)
			}
		}
		assert.Equal(t, 2, count(t, cfg, "handovers"))
		assert.Equal(t, 1, count(t, cfg, "handovers WHERE log = 't-1/e1' AND seq = 3"))
		assert.Equal(t, 1, count(t, cfg, "handovers WHERE log = 't-1/e1' AND seq = 7"))
		assert.Empty(t, openAlarms(t, c))
		assert.Contains(t, bundle(t, newDesk(t, c, b), b, b.log), "verified 1-9; sealed to 9")
		contiguous(t, c, b, 9)
	})
}

// A key that was handed over signs nothing more: not the log that it began, not a
// new one, no alert. The alarm says so, and nothing of it is stored.
func TestT10RetiredKeyIsRefused(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		first := b.batch(t, b.append(t, b.openBy("new"), checkin("p-1")))
		ingest(t, c, b, first)
		old := *b // its disk and its keys
		ingest(t, c, b, b.handOver(t, nextKey(t, false)))
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-1"))))
		ingest(t, c, b, first)
		require.Empty(t, openAlarms(t, c))

		thief := *b
		thief.ledger = old.ledger
		_, err := c.Ingest(t.Context(), "t-1", thief.batch(t, thief.append(t, checkin("p-9"))))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.ErrorContains(t, err, "admit it anew under another id")
		thief.newEpoch("e2")
		_, err = c.Ingest(t.Context(), "t-1", thief.batch(t, thief.append(t, attendance.NewRecord(attendance.TypeOpen, attendance.OpenBody{
			Reason: "missing", Terminal: "t-1", Software: "test", Key: chain.KeyID(thief.ledger.Public()),
		}))))
		require.ErrorIs(t, err, centre.ErrRefused)
		require.ErrorIs(t, c.Alert(t.Context(), "t-1", old.alert(t, nil)), centre.ErrRefused)
		second := old // the box itself may be told to change its key
		_, err = c.Ingest(t.Context(), "t-1", second.handOver(t, nextKey(t, false)))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.Equal(t, []centre.AlarmKind{centre.AlarmKey, centre.AlarmKey, centre.AlarmKey, centre.AlarmKey}, kinds(openAlarms(t, c)))
		assert.Equal(t, 3, count(t, cfg, "quarantine"))
		contiguous(t, c, b, 4)

		// The old disk goes on where it was: other bytes for what is stored.
		_, err = c.Ingest(t.Context(), "t-1", old.batch(t, old.append(t, checkin("p-9"), checkin("p-9"), checkin("p-9"))))
		require.ErrorIs(t, err, centre.ErrRefused)
		contiguous(t, c, b, 4)
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-1"))))
	})
}

// An alert is sent before the records that tell of its key. It brings the
// handovers, counts, and is no forgery; the ledger then goes on as ever.
func TestAlertByAKeyThatTheCentreWillOnlyLearn(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, b.openBy("new"))))
		first := b.handOver(t, nextKey(t, true))
		second := b.handOver(t, nextKey(t, false))
		jws := b.alert(t, nil)
		require.ErrorIs(t, c.Alert(t.Context(), "t-1", jws), centre.ErrRefused, "the control: without handovers it counts for nothing")
		require.NoError(t, c.Alert(t.Context(), "t-1", chain.FormAlert(string(jws), b.handovers...)))
		assert.Equal(t, []centre.AlarmKind{"terminal_gap"}, kinds(openAlarms(t, c)))
		assert.Zero(t, count(t, cfg, "handovers"), "only records tell of keys")
		ingest(t, c, b, first)
		ingest(t, c, b, second)
		assert.Equal(t, 2, count(t, cfg, "handovers"))
		require.NoError(t, c.Alert(t.Context(), "t-1", b.alert(t, func(a *chain.Alert) { a.Seq = 99 })))
		assert.Equal(t, []centre.AlarmKind{"terminal_gap", "terminal_gap"}, kinds(openAlarms(t, c)))
	})
}

// A key record that was lost at the terminal: the handovers in the batches take
// its place, also in the bundle.
func TestKeyRecordThatIsLost(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, b.openBy("new"), checkin("p-1"))))
		b.handOver(t, nextKey(t, false)) // record 3, lost
		behind := b.append(t, checkins(2)...)
		said := b.append(t, gapRecord("", 3, 3))
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, said))
		require.NoError(t, err, "the control: by an unknown key and ahead, it is answered with where the log stands")
		assert.Zero(t, count(t, cfg, "gaps"))
		ingest(t, c, b, b.with(t, said))
		assert.Equal(t, 1, count(t, cfg, "gaps"))
		ingest(t, c, b, b.with(t, behind))
		ingest(t, c, b, b.with(t, said))
		assert.Equal(t, 1, count(t, cfg, "handovers WHERE log = ''"))
		ingest(t, c, b, b.handOver(t, nextKey(t, true)))
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-1"))))
		assert.Contains(t, bundle(t, newDesk(t, c, b), b, b.log), "gap 3; verified 4-8")
		assert.NotContains(t, kinds(openAlarms(t, c)), centre.AlarmKey)
		assert.NotContains(t, kinds(openAlarms(t, c)), centre.AlarmRefused)
	})
}

// An epoch that begins with more handovers than are known tells of them; one that
// falls back is refused.
func TestEpochByALaterKey(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, b.openBy("new"), checkin("p-1"))))
		old := *b
		b.handOver(t, nextKey(t, false)) // lost with the end of the epoch
		b.handOver(t, nextKey(t, true))
		b.newEpoch("e2")
		ingest(t, c, b, b.batch(t, b.append(t, b.openBy("damaged"), checkin("p-1"))))
		assert.Equal(t, 2, count(t, cfg, "handovers WHERE log = 't-1/e2' AND seq = 0"))
		assert.Contains(t, bundle(t, newDesk(t, c, b), b, b.log), "verified 1-2; sealed to 2")
		assert.Equal(t, []centre.AlarmKind{centre.AlarmEpochBreak}, kinds(openAlarms(t, c)))

		_, err := c.Ingest(t.Context(), "t-1", old.batch(t, old.append(t, checkin("p-9"))))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.Equal(t, []centre.AlarmKind{centre.AlarmEpochBreak, centre.AlarmKey}, kinds(openAlarms(t, c)))

		short := *b
		short.handovers = b.handovers[:1]
		short.newEpoch("e3")
		_, err = c.Ingest(t.Context(), "t-1", short.batch(t, short.append(t, short.openBy("damaged"))))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.ErrorContains(t, err, "do not lead to the key")
	})
}

// The uplink certificate is renewed for the last ledger key, not for one that was
// handed over.
func TestAdmissionOfAChangedKey(t *testing.T) {
	c, _, _ := newCentre(t)
	b := admitted(t, c, "t-1")
	old := *b
	ingest(t, c, b, b.batch(t, b.append(t, b.openBy("new"))))
	batch := b.handOver(t, nextKey(t, true))
	again, err := c.Admit(t.Context(), b.request(t))
	require.NoError(t, err, "before the centre has the record")
	assert.Equal(t, b.admission.Ledger, again.Ledger)
	ingest(t, c, b, batch)
	_, err = c.Admit(t.Context(), b.request(t))
	require.NoError(t, err)
	_, err = c.Admit(t.Context(), old.request(t))
	require.ErrorIs(t, err, centre.ErrRequest)
	assert.ErrorContains(t, err, "with other keys")
	forged := *b
	forged.ledger = nextKey(t, false)
	_, err = c.Admit(t.Context(), forged.request(t))
	require.ErrorIs(t, err, centre.ErrRequest)
}

// A terminal whose ledger key is of the kind that a TPM has is admitted and
// verified from the first record on.
func TestLedgerKeyOnATPM(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on, readable)
		b := newBox(t, "t-1")
		b.ledger = nextKey(t, true)
		var err error
		b.admission, err = c.Admit(t.Context(), b.request(t))
		require.NoError(t, err)
		ingest(t, c, b, b.batch(t, b.append(t, b.openBy("new"), checkin("p-1"))))
		assert.Contains(t, bundle(t, newDesk(t, c, b), b, b.log), "verified 1-2; sealed to 2")
		assert.Empty(t, openAlarms(t, c))
	})
}
