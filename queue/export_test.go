package queue

import "go.etcd.io/bbolt"

// SetUpdate puts something between a ledger and its disk.
func (l *Ledger) SetUpdate(f func(tx func(*bbolt.Tx) error, disk func(func(*bbolt.Tx) error) error) error) {
	disk := l.db.Update
	l.update = func(tx func(*bbolt.Tx) error) error { return f(tx, disk) }
}
