package queue_test

import (
	"log/slog"
	"testing"

	"rollcall/queue"
	"rollcall/queue/queuetest"
)

func open(cfg queue.Config) (queuetest.Ledger, error) {
	return queue.Open(cfg, slog.New(slog.DiscardHandler))
}

func TestContract(t *testing.T) { queuetest.Test(t, open) }
