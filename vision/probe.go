package vision

// probe is the face before the camera as its last frames saw it: their mean.
// A frame of somebody else begins a new one.
//
// The mean was chosen over the best frame by measurement: the best of five
// doubles the false matches at a threshold, the mean of three to five leaves
// them nearly as they are (docs/decisions, page 14).
type probe struct {
	frames []Embedding // unit length, oldest first
}

const (
	// window is how many frames a score is made of at most; more gained nothing.
	window = 5
	// sameProbe is the least likeness of a frame with the mean of those before
	// it for both to be of one person within a second.
	sameProbe = 0.5
)

// add takes a frame's face, which must have an embedding, and gives the mean
// and how many frames it is made of.
func (p *probe) add(f Face) (Embedding, int) {
	e := append(Embedding(nil), f.Embedding...)
	if len(p.frames) > 0 && Cosine(meanOf(p.frames), e) < sameProbe {
		p.wipe()
	}
	if len(p.frames) == window {
		clear(p.frames[0])
		p.frames = append(p.frames[:0], p.frames[1:]...)
	}
	p.frames = append(p.frames, e)
	return meanOf(p.frames), len(p.frames)
}

// wipe forgets all frames.
func (p *probe) wipe() {
	for _, e := range p.frames {
		clear(e)
	}
	p.frames = nil
}

// meanOf gives the direction in the middle of vectors of one length.
func meanOf(all []Embedding) Embedding {
	sum := make(Embedding, len(all[0]))
	for _, e := range all {
		for i, x := range e {
			sum[i] += x
		}
	}
	if unit := sum.Unit(); unit != nil {
		return unit
	}
	return sum // opposite vectors; like nobody
}
