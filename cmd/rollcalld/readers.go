package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"rollcall/device"
)

// readerHealth makes one health part of all readers: with one of several gone
// the terminal still works, and somebody should look at the other.
type readerHealth struct {
	health *device.Health

	mu    sync.Mutex       // guards what follows
	known map[string]error // by reader, nil while it works; "" is the PC/SC service
}

func newReaderHealth(h *device.Health) *readerHealth {
	return &readerHealth{health: h, known: map[string]error{}}
}

// report is told of every change of a reader or of the service. It may be
// called from several goroutines at once.
func (r *readerHealth) report(reader string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[reader] = err
	works, broken := false, ""
	var trouble error
	for _, name := range slices.Sorted(maps.Keys(r.known)) {
		switch err := r.known[name]; {
		case err == nil:
			works = works || name != ""
		case trouble == nil:
			broken, trouble = name, err
		}
	}
	switch {
	case trouble == nil:
		r.health.OK(device.PartReader)
	case works:
		r.health.Set(device.PartReader, device.StateDegraded, readerSentence(broken, trouble))
	default:
		r.health.Set(device.PartReader, device.StateDown, readerSentence(broken, trouble))
	}
}

func readerSentence(name string, trouble error) device.Sentence {
	if name == "" {
		return device.Sentence{
			Zh: "读卡服务未运行：请安装并启动 pcscd；签到请用其他方式。",
			En: fmt.Sprintf("The smart card service does not answer: %v; install and start pcscd, and check in another way.", trouble),
		}
	}
	return device.Sentence{
		Zh: fmt.Sprintf("读卡器 %s 不可用：请检查连接线；签到请用其他方式。", name),
		En: fmt.Sprintf("Reader %s does not work: %v; check its cable, and check in another way.", name, trouble),
	}
}
