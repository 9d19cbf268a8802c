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

// Nets is a loaded model set.
type Nets struct {
	all                               []*net // whoever closes, closes these
	detect, points, embed, eyes, pose *net   // points, eyes and pose may be nil
	liveness                          []*net
	crop, small, matrix               gocv.Mat
}

// LoadNets checks the sums of the set in dir, loads it on so many threads and
// runs every net once: a net that is not of the kind that the manifest says is
// found out, and the first check is as fast as the next. Nets that only advise
// and are not there are left out, see [vision.Manifest.Usable].
func LoadNets(m vision.Manifest, dir string, threads int) (*Nets, error) {
	m = m.Usable(dir)
	if err := m.Verify(dir); err != nil {
		return nil, err
	}
	if err := setThreads(threads); err != nil {
		return nil, fmt.Errorf("setting threads: %w", err)
	}
	n := &Nets{crop: gocv.NewMat(), small: gocv.NewMat(), matrix: gocv.NewMatWithSize(2, 3, gocv.MatTypeCV64F)}
	for _, model := range m.Models {
		loaded, err := loadNet(filepath.Join(dir, model.File), model)
		if err != nil {
			n.Close()
			return nil, err
		}
		n.all = append(n.all, loaded)
		n.place(loaded)
	}
	if err := n.warm(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Nets) place(loaded *net) {
	switch loaded.model.Role {
	case vision.RoleDetect:
		n.detect = loaded
	case vision.RolePoints:
		n.points = loaded
	case vision.RoleEmbed:
		n.embed = loaded
	case vision.RoleLiveness:
		n.liveness = append(n.liveness, loaded)
	case vision.RoleEyes:
		n.eyes = loaded
	case vision.RolePose:
		n.pose = loaded
	}
}

// warm works once on a grey picture, as if there were a face.
func (n *Nets) warm() error {
	blank := &Picture{gocv.NewMatWithSizeFromScalar(gocv.NewScalar(128, 128, 128, 0), 480, 640, gocv.MatTypeCV8UC3), gocv.NewMat()}
	defer blank.Close()
	if _, err := n.find(blank); err != nil {
		return err
	}
	face := sighting{Face: vision.Face{Box: vision.Box{X: 200, Y: 150, W: 150, H: 200}}}
	if n.points == nil {
		five := aligned
		face.five = &five
	}
	var took vision.Times
	return n.work(blank, &face, vision.Work{}, startClock(), &took)
}

// Close frees the nets.
func (n *Nets) Close() {
	for _, net := range n.all {
		net.close()
	}
	_ = n.crop.Close()
	_ = n.small.Close()
	_ = n.matrix.Close()
}

// Look checks a camera's frame: all faces, best first; the one that
// [vision.Usable] picks is worked on.
func (n *Nets) Look(p *Picture, work vision.Work) ([]vision.Face, vision.Times, error) {
	return n.check(p, work, func(faces []vision.Face) (from, to int) {
		person, _ := vision.Usable(faces)
		if person < 0 {
			return 0, 0
		}
		return person, person + 1
	})
}

// LookAll checks a still picture: every face is worked on, however small.
func (n *Nets) LookAll(p *Picture, work vision.Work) ([]vision.Face, vision.Times, error) {
	return n.check(p, work, func(faces []vision.Face) (from, to int) { return 0, len(faces) })
}

// check finds faces and works on those that choose picks.
func (n *Nets) check(p *Picture, work vision.Work, choose func([]vision.Face) (from, to int)) ([]vision.Face, vision.Times, error) {
	var took vision.Times
	clock := startClock()
	seen, err := n.find(p)
	clock.lap(&took.Detect)
	if err != nil {
		return nil, took, err
	}
	faces := make([]vision.Face, len(seen))
	for i, s := range seen {
		faces[i] = s.Face
	}
	from, to := choose(faces)
	for i := from; i < to; i++ {
		if err := n.work(p, &seen[i], work, clock, &took); err != nil {
			return nil, took, err
		}
		faces[i] = seen[i].Face
	}
	clock.total(&took.Total)
	return faces, took, nil
}

// work does on one face what is wanted.
func (n *Nets) work(p *Picture, f *sighting, work vision.Work, clock *stopwatch, took *vision.Times) error {
	if !work.NoEmbedding || !work.NoMeasures {
		marks, err := n.landmarks(p, f)
		clock.lap(&took.Points)
		if err != nil {
			return err
		}
		if err := n.align(p, marks.five); err != nil {
			return err
		}
		if !work.NoMeasures {
			if f.Measures, err = n.measureCrop(p, f.Box, marks.five); err != nil {
				return err
			}
			clock.lap(&took.Measures)
		}
		if !work.NoEmbedding {
			if err := n.embedFace(&f.Face, work.Mirror, clock, took); err != nil {
				return err
			}
		}
		if !work.NoMeasures {
			err := n.measureNets(p, &f.Face, marks)
			clock.lap(&took.Measures)
			if err != nil {
				return err
			}
		}
	}
	if work.NoLiveness || len(n.liveness) == 0 {
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

// landmarks finds the points of a face, unless the detector gave them.
func (n *Nets) landmarks(p *Picture, f *sighting) (landmarks, error) {
	if n.points == nil {
		return fromFive(*f.five), nil
	}
	part := square(f.Box, p.mat.Cols(), p.mat.Rows(), n.points.model.Crop)
	if err := n.cut(p, stretch(part, n.points.size()), n.points.size()); err != nil {
		return landmarks{}, err
	}
	out, err := n.points.one(n.crop, 2*68)
	if err != nil {
		return landmarks{}, err
	}
	var all [68]point
	for i := range all {
		all[i] = point{part.x + float64(out[2*i])*part.w, part.y + float64(out[2*i+1])*part.h}
	}
	return from68(all), nil
}

// align cuts a face by its alignment points into n.crop, as the embedder wants it.
func (n *Nets) align(p *Picture, from [5]point) error {
	return n.cut(p, similarity(from, aligned), n.embed.size())
}

// measureCrop takes the measures that need no net of the face in n.crop.
func (n *Nets) measureCrop(p *Picture, b vision.Box, points [5]point) (*vision.Measures, error) {
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

// embedFace embeds the face that is in n.crop, and if wanted its mirror image.
func (n *Nets) embedFace(f *vision.Face, mirror bool, clock *stopwatch, took *vision.Times) (err error) {
	f.Embedding, err = n.vector(n.crop)
	clock.lap(&took.Embed)
	if err != nil || !mirror {
		return err
	}
	if err = gocv.Flip(n.crop, &n.small, 1); err != nil {
		return err
	}
	f.Mirrored, err = n.vector(n.small)
	clock.lap(&took.Mirror)
	return err
}

// vector turns an aligned crop into a vector of length 1.
func (n *Nets) vector(crop gocv.Mat) (vision.Embedding, error) {
	outs, err := n.embed.forward(crop)
	if err != nil {
		return nil, err
	}
	e := vision.Embedding(outs[0].data).Unit()
	if e == nil {
		return nil, n.embed.misfit("a vector without direction")
	}
	return e, nil
}

// measureNets takes the measures that the set has nets for.
func (n *Nets) measureNets(p *Picture, f *vision.Face, marks landmarks) error {
	if n.eyes != nil {
		f.Measures.EyesOpen = 1
		for _, e := range marks.eyes {
			open, err := n.open(p, e)
			if err != nil {
				return err
			}
			f.Measures.EyesOpen = min(f.Measures.EyesOpen, open)
		}
	}
	if n.pose == nil {
		return nil
	}
	var err error
	f.Measures.Yaw, f.Measures.Pitch, f.Measures.Roll, err = n.turned(p, f.Box)
	return err
}

// open gives how sure the net is that one eye is open.
func (n *Nets) open(p *Picture, e eye) (float64, error) {
	if err := n.cut(p, stretch(e.cut(n.eyes.model.Crop), n.eyes.size()), n.eyes.size()); err != nil {
		return 0, err
	}
	out, err := n.eyes.one(n.crop, 2)
	if err != nil {
		return 0, err
	}
	return softmax(out)[1], nil
}

// A pose net sorts each angle into bins of 3 degrees from -99.
const (
	bins      = 66
	binWidth  = 3
	lowestBin = -99
)

// turned gives the angles of a head by the set's net, in degrees.
func (n *Nets) turned(p *Picture, b vision.Box) (yaw, pitch, roll float64, err error) {
	if err := n.cut(p, stretch(scaled(b, n.pose.model.Crop), n.pose.size()), n.pose.size()); err != nil {
		return 0, 0, 0, err
	}
	outs, err := n.pose.forward(n.crop)
	if err != nil {
		return 0, 0, 0, err
	}
	var angles [3]float64
	for i := range angles {
		if len(outs[i].data) != bins {
			return 0, 0, 0, n.pose.misfit("%d bins instead of %d", len(outs[i].data), bins)
		}
		for bin, share := range softmax(outs[i].data) {
			angles[i] += share * (binWidth*float64(bin) + lowestBin)
		}
	}
	return -angles[0], angles[1], angles[2], nil // its yaw counts to the person's right
}

// live gives 0 (a picture of a person) to 1 (a person), the mean of the set's
// nets: advice only.
func (n *Nets) live(p *Picture, b vision.Box) (float64, error) {
	var sum float64
	for _, net := range n.liveness {
		part := surroundings(b, p.mat.Cols(), p.mat.Rows(), net.model.Crop)
		if err := n.cut(p, stretch(part, net.size()), net.size()); err != nil {
			return 0, err
		}
		out, err := net.one(n.crop, 3)
		if err != nil {
			return 0, err
		}
		sum += softmax(out)[*net.model.LiveClass]
	}
	return sum / float64(len(n.liveness)), nil
}

// cut samples the picture through m into n.crop; what lies outside is black.
func (n *Nets) cut(p *Picture, m affine, size image.Point) error {
	for i, v := range m {
		n.matrix.SetDoubleAt(i/3, i%3, v)
	}
	return gocv.WarpAffineWithParams(p.mat, &n.crop, n.matrix, size,
		gocv.InterpolationLinear, gocv.BorderConstant, color.RGBA{})
}
