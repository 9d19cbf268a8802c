package attendance

import (
	"context"
	"time"
)

// met is how far a session of a class has come by the ledger.
type met struct {
	Seq    uint64 // of its last session record
	Closed bool
}

type sessionKey struct {
	Class   ClassID
	Session SessionID
}

func (b *Book) observeSession(seq uint64, raw []byte) error {
	s, err := ReadBody[SessionBody](raw)
	if err != nil {
		return err
	}
	b.sessions[sessionKey{s.Class, s.Session}] = met{seq, s.Event == SessionClosed}
	return nil
}

// Due gives the session records that the timetables ask for at a time and the
// book does not have: opened, from when check-in is open; closed, after the end
// of one that was opened. A session that the terminal slept through has none.
func (r *Roster) Due(book *Book, now time.Time) []Record {
	var due []Record
	for _, c := range r.classes {
		for _, s := range c.Sessions {
			so, opened := book.sessions[sessionKey{c.Class.ID, s.ID}]
			body := SessionBody{
				Class: c.Class.ID, Session: s.ID, Serial: c.Serial,
				Start: formatTime(s.Start.In(now.Location())), End: formatTime(s.End.In(now.Location())),
			}
			switch {
			case !opened && c.opens(s, now):
				body.Event = SessionOpened
			case opened && !so.Closed && !now.Before(s.End):
				present := book.Count(s.ID)
				body.Event, body.Present = SessionClosed, &present
			default:
				continue
			}
			due = append(due, NewRecord(TypeSession, body))
		}
	}
	return due
}

// keepTimetable records what is due. What the disk refuses stays due.
func (t *Terminal) keepTimetable(ctx context.Context) {
	for _, r := range t.Roster().Due(t.Book, t.Now()) {
		if a := t.append(ctx, r); a.err != nil {
			t.Log.Debug("session record waits", "err", a.err)
			return
		}
	}
}
