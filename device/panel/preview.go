package panel

import (
	"bytes"
	"net/http"

	"rollcall/attendance"
)

const (
	maxFrame   = 256 << 10 // bytes; a 320x240 preview has 15,000
	maxViewers = 4
)

const (
	boundary = "frame"
	partHead = "--" + boundary + "\r\nContent-Type: image/jpeg\r\n\r\n"
)

var jpegStart = []byte{0xFF, 0xD8, 0xFF}

func asksToLook(s attendance.ScreenState) bool {
	return s == attendance.ScreenLook || s == attendance.ScreenRetry || s == attendance.ScreenEnrolLook
}

// Preview passes a camera picture on to the page, if the screen asks a person
// to look just now; else it is dropped. The newest wins and only one is held.
// The panel owns jpeg from then on. It never waits.
func (p *Panel) Preview(jpeg []byte) {
	if len(jpeg) > maxFrame || !bytes.HasPrefix(jpeg, jpegStart) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if asksToLook(p.screen.State) {
		p.setFrame(jpeg)
	}
}

// setFrame replaces the picture held and wakes who waits for it. The caller
// holds mu.
func (p *Panel) setFrame(jpeg []byte) {
	p.frame = jpeg
	close(p.stirred)
	p.stirred = make(chan struct{})
}

// nextFrame gives the picture held, whether there may be more, and a channel
// that tells of the next change.
func (p *Panel) nextFrame() (jpeg []byte, more bool, stirred <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frame, asksToLook(p.screen.State), p.stirred
}

// servePreview sends pictures as multipart/x-mixed-replace, which browsers
// show in an img element, until nobody is asked to look any more.
func (p *Panel) servePreview(w http.ResponseWriter, r *http.Request) {
	if !p.addViewer(1) {
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer p.addViewer(-1)
	stream := newStream(w)
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	if stream.write([]byte(partHead)) != nil {
		return
	}
	for {
		jpeg, more, stirred := p.nextFrame()
		if !more {
			return
		}
		if jpeg != nil && stream.write(part(jpeg)) != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-stirred:
		}
	}
}

// part is a picture and the head of the next: Chromium shows a picture only
// once it has read the head of the one after it.
func part(jpeg []byte) []byte {
	return append(bytes.Clone(jpeg), "\r\n"+partHead...)
}

func (p *Panel) addViewer(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.viewers+n > maxViewers {
		return false
	}
	p.viewers += n
	return true
}
