//go:build cgo && opencv

package opencv

import (
	"fmt"
	"image"
	"image/color"
	"path/filepath"
	"time"

	"gocv.io/x/gocv"

	"rollcall/vision"
)

// What the detector's answers must reach, as the figures in docs/performance.md
// were measured.
const (
	leastScore  = 0.65
	mostOverlap = 0.4
	mostFaces   = 64
)

// Nets is a loaded model set.
type Nets struct {
	detect, points, embed, liveness *net
	crop, small, matrix             gocv.Mat
}

// LoadNets checks the sums of the set in dir, loads it on so many threads and
// runs every net once, so that the first check is as fast as the next.
func LoadNets(m vision.Manifest, dir string, threads int) (*Nets, error) {
	if err := m.Verify(dir); err != nil {
		return nil, err
	}
	if err := setThreads(threads); err != nil {
		return nil, fmt.Errorf("setting threads: %w", err)
	}
	n := &Nets{crop: gocv.NewMat(), small: gocv.NewMat(), matrix: gocv.NewMatWithSize(2, 3, gocv.MatTypeCV64F)}
	for role, place := range map[vision.Role]**net{
		vision.RoleDetect: &n.detect, vision.RolePoints: &n.points,
		vision.RoleEmbed: &n.embed, vision.RoleLiveness: &n.liveness,
	} {
		model := m.Model(role)
		loaded, err := loadNet(filepath.Join(dir, model.File), model)
		if err != nil {
			n.Close()
			return nil, err
		}
		*place = loaded
	}
	if err := n.warm(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Nets) all() []*net { return []*net{n.detect, n.points, n.embed, n.liveness} }

func (n *Nets) warm() error {
	for _, net := range n.all() {
		blank := gocv.NewMatWithSize(net.model.Input.Height, net.model.Input.Width, gocv.MatTypeCV8UC3)
		_, err := net.forward(blank)
		_ = blank.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Close frees the nets.
func (n *Nets) Close() {
	for _, net := range n.all() {
		if net != nil {
			net.close()
		}
	}
	_ = n.crop.Close()
	_ = n.small.Close()
	_ = n.matrix.Close()
}

// Look checks a camera's frame: all faces, best first; the one that
// [vision.Usable] picks is worked on.
func (n *Nets) Look(p *Picture, work vision.Work) ([]vision.Face, vision.Times, error) {
	var took vision.Times
	clock := startClock()
	faces, err := n.find(p)
	clock.lap(&took.Detect)
	if err == nil {
		if person, _ := vision.Usable(faces); person >= 0 {
			err = n.work(p, &faces[person], work, clock, &took)
		}
	}
	clock.total(&took.Total)
	return faces, took, err
}

// LookAll checks a still picture: every face is worked on, however small.
func (n *Nets) LookAll(p *Picture, work vision.Work) ([]vision.Face, vision.Times, error) {
	var took vision.Times
	clock := startClock()
	faces, err := n.find(p)
	clock.lap(&took.Detect)
	for i := 0; i < len(faces) && err == nil; i++ {
		err = n.work(p, &faces[i], work, clock, &took)
	}
	clock.total(&took.Total)
	return faces, took, err
}

// work does on one face what is wanted.
func (n *Nets) work(p *Picture, f *vision.Face, work vision.Work, clock *stopwatch, took *vision.Times) error {
	if !work.NoEmbedding || !work.NoMeasures {
		points, err := n.landmarks(p, f.Box)
		clock.lap(&took.Points)
		if err != nil {
			return err
		}
		if err := n.align(p, points); err != nil {
			return err
		}
		if !work.NoMeasures {
			if f.Measures, err = n.measure(p, f.Box, points); err != nil {
				return err
			}
			clock.lap(&took.Measures)
		}
		if !work.NoEmbedding {
			err := n.embedBoth(f, work.Mirror)
			clock.lap(&took.Embed)
			if err != nil {
				return err
			}
		}
	}
	if work.NoLiveness {
		return nil
	}
	var err error
	f.Liveness, err = n.live(p, f.Box)
	clock.lap(&took.Liveness)
	return err
}

// stopwatch tells what each stage took.
type stopwatch struct{ began, last time.Time }

func startClock() *stopwatch {
	now := time.Now()
	return &stopwatch{now, now}
}

// lap adds the milliseconds since the last lap to into.
func (s *stopwatch) lap(into *float64) {
	now := time.Now()
	*into += float64(now.Sub(s.last)) / float64(time.Millisecond)
	s.last = now
}

func (s *stopwatch) total(into *float64) {
	*into = float64(time.Since(s.began)) / float64(time.Millisecond)
}

// find gives the faces in a picture, best first, without embedding.
func (n *Nets) find(p *Picture) ([]vision.Face, error) {
	view, err := n.letterbox(p)
	if err != nil {
		return nil, err
	}
	outs, err := n.detect.forward(n.crop)
	if err != nil {
		return nil, err
	}
	var scores, corners []float32
	for _, o := range outs {
		switch o.width {
		case 2:
			scores = o.data
		case 4:
			corners = o.data
		}
	}
	if len(scores) == 0 || len(corners) != 2*len(scores) {
		return nil, fmt.Errorf("running %s: outputs are not N scores and N boxes", n.detect.model.File)
	}
	var faces []vision.Face
	for i := range len(scores) / 2 {
		score, box := float64(scores[2*i+1]), boxIn(view, corners[4*i:4*i+4])
		if score >= leastScore && inView(box, p.mat.Cols(), p.mat.Rows()) {
			faces = append(faces, vision.Face{Box: box, Score: min(score, 1), Liveness: -1})
		}
	}
	faces = distinct(faces, mostOverlap)
	return faces[:min(len(faces), mostFaces)], nil
}

// letterbox shrinks the picture into n.crop, of the detector's input size, and
// gives the part of the picture's plane that is on it. It averages areas: with
// fewer samples the stripes of a window blind became a face.
func (n *Nets) letterbox(p *Picture) (rect, error) {
	in := n.detect.model.Input
	view := canvas(p.mat.Cols(), p.mat.Rows(), in.Width, in.Height)
	scale := float64(in.Width) / view.w
	w := max(1, int(scale*float64(p.mat.Cols())+0.5))
	h := max(1, int(scale*float64(p.mat.Rows())+0.5))
	if err := gocv.Resize(p.mat, &n.small, image.Pt(w, h), 0, 0, gocv.InterpolationArea); err != nil {
		return rect{}, err
	}
	left, top := (in.Width-w)/2, (in.Height-h)/2
	err := gocv.CopyMakeBorder(n.small, &n.crop, top, in.Height-h-top, left, in.Width-w-left, gocv.BorderConstant, color.RGBA{})
	view.x, view.y = -float64(left)/scale, -float64(top)/scale
	return view, err
}

// boxIn places corners in 0..1 of a part of a picture.
func boxIn(r rect, c []float32) vision.Box {
	x0, y0, x1, y1 := float64(c[0]), float64(c[1]), float64(c[2]), float64(c[3])
	return vision.Box{X: r.x + x0*r.w, Y: r.y + y0*r.h, W: (x1 - x0) * r.w, H: (y1 - y0) * r.h}
}

// landmarks finds the five alignment points of a face.
func (n *Nets) landmarks(p *Picture, b vision.Box) ([5]point, error) {
	in := n.points.model.Input
	part := square(b, p.mat.Cols(), p.mat.Rows())
	if err := n.cut(p, stretch(part, in.Width, in.Height), in.Width, in.Height); err != nil {
		return [5]point{}, err
	}
	out, err := n.points.one(n.crop, 2*68)
	if err != nil {
		return [5]point{}, err
	}
	var all [68]point
	for i := range all {
		all[i] = point{part.x + float64(out[2*i])*part.w, part.y + float64(out[2*i+1])*part.h}
	}
	return five(all), nil
}

// align cuts a face by its alignment points into n.crop, as the embedder wants it.
func (n *Nets) align(p *Picture, from [5]point) error {
	in := n.embed.model.Input
	return n.cut(p, similarity(from, aligned), in.Width, in.Height)
}

// measure takes the measures of the face that is in n.crop.
func (n *Nets) measure(p *Picture, b vision.Box, points [5]point) (*vision.Measures, error) {
	frame, err := rasterOf(&p.mat)
	if err != nil {
		return nil, err
	}
	crop, err := rasterOf(&n.crop)
	if err != nil {
		return nil, err
	}
	return measure(frame, crop, b, points), nil
}

// rasterOf lends a matrix's pixels, for as long as it is not changed.
func rasterOf(m *gocv.Mat) (raster, error) {
	pixels, err := m.DataPtrUint8()
	return raster{pixels, m.Cols(), m.Rows()}, err
}

// embedBoth embeds the face that is in n.crop, and if wanted its mirror image.
func (n *Nets) embedBoth(f *vision.Face, mirror bool) (err error) {
	if f.Embedding, err = n.vector(n.crop); err != nil || !mirror {
		return err
	}
	if err = gocv.Flip(n.crop, &n.small, 1); err != nil {
		return err
	}
	f.Mirrored, err = n.vector(n.small)
	return err
}

// vector turns an aligned crop into a vector of length 1.
func (n *Nets) vector(crop gocv.Mat) (vision.Embedding, error) {
	outs, err := n.embed.forward(crop)
	if err != nil {
		return nil, err
	}
	if len(outs) != 1 {
		return nil, fmt.Errorf("running %s: not one output", n.embed.model.File)
	}
	e := vision.Embedding(outs[0].data).Unit()
	if e == nil {
		return nil, fmt.Errorf("running %s: vector without direction", n.embed.model.File)
	}
	return e, nil
}

// live gives 0 (a picture of a person) to 1 (a person). The net of the
// default set is weak: advice only.
func (n *Nets) live(p *Picture, b vision.Box) (float64, error) {
	in := n.liveness.model.Input
	part := surroundings(b, p.mat.Cols(), p.mat.Rows())
	if err := n.cut(p, stretch(part, in.Width, in.Height), in.Width, in.Height); err != nil {
		return 0, err
	}
	out, err := n.liveness.one(n.crop, 3)
	if err != nil {
		return 0, err
	}
	return softmaxFirst(out), nil
}

// cut samples the picture through m into n.crop of w x h; what lies outside is black.
func (n *Nets) cut(p *Picture, m affine, w, h int) error {
	for i, v := range m {
		n.matrix.SetDoubleAt(i/3, i%3, v)
	}
	return gocv.WarpAffineWithParams(p.mat, &n.crop, n.matrix, image.Pt(w, h),
		gocv.InterpolationLinear, gocv.BorderConstant, color.RGBA{})
}
