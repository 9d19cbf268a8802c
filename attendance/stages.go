package attendance

import (
	"log/slog"
	"time"
)

// stageTimes is when one tap passed each stage.
type stageTimes struct {
	seen, read, verify, answer, decided, stored time.Time
}

func (s *stageTimes) tap(t Tap, now time.Time) {
	if t.Kind == CardRead || t.Kind == CardFailed {
		s.read = now
	}
}

// look notes the last answer of the camera before the decision.
func (s *stageTimes) look(at time.Time) { s.answer = at }

// LogValue gives the stages in microseconds: card (from the reader's event to
// the credential), face (from the question to the camera's answer), store (the
// ledger), total, and ours: total without card, face and store.
func (s stageTimes) LogValue() slog.Value {
	card, face, store := between(s.seen, s.read), between(s.verify, s.answer), between(s.decided, s.stored)
	total := between(s.seen, s.stored)
	return slog.GroupValue(
		slog.Int64("card_us", card.Microseconds()),
		slog.Int64("face_us", face.Microseconds()),
		slog.Int64("store_us", store.Microseconds()),
		slog.Int64("ours_us", (total-card-face-store).Microseconds()),
		slog.Int64("total_us", total.Microseconds()),
	)
}

func between(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return to.Sub(from)
}
