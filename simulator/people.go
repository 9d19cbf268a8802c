package simulator

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"

	"rollcall/attendance"
)

// The pictures come from registry packages (deploy/fetch-models.sh, NOTICE).
// They show the path of a tap and are no evidence of accuracy: a person is
// enrolled from one rendering of a picture and shown as another of the same.
//
//go:embed testdata/people.json
var peopleFile []byte

// Person is somebody who can stand before a [Camera].
type Person struct {
	Label string // "p01": says nothing about the person
	head  *image.RGBA
	box   [4]float64 // the face in head: x, y, width, height
}

// Variation is how a person is seen. The zero value means a face of 150 px in
// the middle, upright, sharp, in the picture's own light.
type Variation struct {
	Light float64 // gain on every pixel; 0 means 1
	Size  float64 // width of the face in pixels; 0 means 150
	Angle float64 // degrees, clockwise
	Blur  float64 // standard deviation in pixels
	Yaw   float64 // degrees the head is turned, to the right of the picture
	X, Y  float64 // pixels from the middle of the frame
}

// AtEnrolment and AtCheckIn are how the demo's people are enrolled and seen.
var (
	AtEnrolment = Variation{}
	AtCheckIn   = Variation{Light: 0.85, Size: 120, Angle: 6, Blur: 0.8, X: -50, Y: 15}
)

// Posed is how somebody is seen who follows an enrolment's advice.
func Posed(pose attendance.Pose) Variation {
	v := AtEnrolment
	switch pose {
	case attendance.PoseLeft:
		v.Yaw = 30
	case attendance.PoseRight:
		v.Yaw = -30
	}
	return v
}

// LoadPeople reads the people of the demo; dir holds the pictures that
// "make models" fetches. No two of them look alike to the default embedder:
// the same person in two variations is at 0.91 or more, two people are at 0.29
// or less (every pair is compared in people_test.go).
func LoadPeople(dir string) ([]Person, error) {
	var file struct {
		People []struct {
			Label   string     `json:"label"`
			Picture string     `json:"picture"`
			Box     [4]float64 `json:"box"`
		} `json:"people"`
	}
	if err := json.Unmarshal(peopleFile, &file); err != nil {
		return nil, fmt.Errorf("reading people: %w", err)
	}
	pictures := map[string]image.Image{}
	var people []Person
	for _, p := range file.People {
		if pictures[p.Picture] == nil {
			picture, err := readJPEG(filepath.Join(dir, p.Picture))
			if err != nil {
				return nil, fmt.Errorf("reading people: %w: run make models", err)
			}
			pictures[p.Picture] = picture
		}
		people = append(people, Person{p.Label, headOf(pictures[p.Picture], p.Box), p.Box})
	}
	return people, nil
}

func readJPEG(path string) (image.Image, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return jpeg.Decode(bytes.NewReader(b))
}

// headOf copies what a frame can show of a person, so that the whole picture
// need not stay in memory. Coordinates stay those of the picture.
func headOf(picture image.Image, box [4]float64) *image.RGBA {
	r := image.Rect(int(box[0]-box[2]), int(box[1]-box[3]), int(box[0]+2*box[2]), int(box[1]+2*box[3])).Intersect(picture.Bounds())
	head := image.NewRGBA(r)
	draw.Draw(head, r, picture, r.Min, draw.Src)
	return head
}

// The frame of every simulated camera.
const (
	frameWidth  = 640
	frameHeight = 480
)

// wall is what stands behind everybody.
var wall = [3]float64{176, 184, 190}

// The head is an ellipse around the face's box, in half sizes of the box;
// between inner and outer edge it fades into the wall. It is narrow enough
// that a neighbour in a group picture stays out of view.
const (
	headWide  = 1.5
	headHigh  = 1.45
	headInner = 0.85
)

// Frame renders the person; nobody means an empty room.
func (p *Person) Frame(v Variation) image.Image {
	pixels := make([]float64, 3*frameWidth*frameHeight)
	for i := range pixels {
		pixels[i] = wall[i%3]
	}
	if p != nil {
		p.draw(pixels, v)
	}
	blur(pixels, v.Blur)
	return toImage(pixels, orDefault(v.Light, 1))
}

func orDefault(x, standard float64) float64 {
	if x == 0 {
		return standard
	}
	return x
}

func (p *Person) draw(pixels []float64, v Variation) {
	scale := p.box[2] / orDefault(v.Size, 150) // pixels of the picture to one of the frame
	sin, cos := math.Sincos(v.Angle * math.Pi / 180)
	cx, cy := p.box[0]+p.box[2]/2, p.box[1]+p.box[3]/2
	reach := int(max(headWide*p.box[2], headHigh*p.box[3])/2/scale) + 1
	mx, my := frameWidth/2+int(v.X), frameHeight/2+int(v.Y)
	for y := max(0, my-reach); y < min(frameHeight, my+reach+1); y++ {
		for x := max(0, mx-reach); x < min(frameWidth, mx+reach+1); x++ {
			dx, dy := float64(x)-frameWidth/2-v.X, float64(y)-frameHeight/2-v.Y
			u, w := scale*(cos*dx+sin*dy), scale*(cos*dy-sin*dx)
			share := headShare(2*u/p.box[2], 2*w/p.box[3])
			if share == 0 {
				continue
			}
			u -= p.turn(v.Yaw, u, w)
			at := pixels[3*(y*frameWidth+x):][:3]
			for c, value := range sample(p.head, cx+u, cy+w) {
				at[c] += share * (value - at[c])
			}
		}
	}
}

// turn is how far a point of the picture is moved by a turned head: most at the
// nose, which stands out from the eyes and the mouth by a third of the face's
// width. It is a flat picture that gives the measures of a turned face, and no
// side of it that was hidden.
func (p *Person) turn(yaw, u, w float64) float64 {
	if yaw == 0 {
		return 0
	}
	a, b := 2*u/p.box[2]/0.6, (2*w/p.box[3]-0.1)/0.7
	return math.Tan(yaw*math.Pi/180) * p.box[2] / 3 * math.Exp(-a*a-b*b)
}

// headShare is how much of a point belongs to the head, 0 to 1.
func headShare(u, v float64) float64 {
	r := math.Hypot(u/headWide, v/headHigh)
	return min(1, max(0, (1-r)/(1-headInner)))
}

// sample reads a picture between its pixels (bilinear, edges repeated).
func sample(m *image.RGBA, x, y float64) [3]float64 {
	b := m.Bounds()
	x = min(max(x, float64(b.Min.X)), float64(b.Max.X-1))
	y = min(max(y, float64(b.Min.Y)), float64(b.Max.Y-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, b.Max.X-1), min(y0+1, b.Max.Y-1)
	fx, fy := x-float64(x0), y-float64(y0)
	var out [3]float64
	for _, corner := range [4]struct {
		x, y int
		part float64
	}{{x0, y0, (1 - fx) * (1 - fy)}, {x1, y0, fx * (1 - fy)}, {x0, y1, (1 - fx) * fy}, {x1, y1, fx * fy}} {
		c := m.RGBAAt(corner.x, corner.y)
		out[0] += corner.part * float64(c.R)
		out[1] += corner.part * float64(c.G)
		out[2] += corner.part * float64(c.B)
	}
	return out
}

// blur is a Gaussian, one direction after the other.
func blur(pixels []float64, deviation float64) {
	if deviation <= 0 {
		return
	}
	radius := int(math.Ceil(3 * deviation))
	weights := make([]float64, 2*radius+1)
	var sum float64
	for i := range weights {
		d := float64(i-radius) / deviation
		weights[i] = math.Exp(-d * d / 2)
		sum += weights[i]
	}
	from := make([]float64, len(pixels))
	for _, step := range [2][2]int{{1, 0}, {0, 1}} {
		copy(from, pixels)
		for y := range frameHeight {
			for x := range frameWidth {
				at := pixels[3*(y*frameWidth+x):][:3]
				at[0], at[1], at[2] = 0, 0, 0
				for i, w := range weights {
					sx := min(max(x+step[0]*(i-radius), 0), frameWidth-1)
					sy := min(max(y+step[1]*(i-radius), 0), frameHeight-1)
					src := from[3*(sy*frameWidth+sx):][:3]
					at[0] += w / sum * src[0]
					at[1] += w / sum * src[1]
					at[2] += w / sum * src[2]
				}
			}
		}
	}
}

func toImage(pixels []float64, light float64) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, frameWidth, frameHeight))
	level := func(x float64) uint8 { return uint8(min(255, max(0, light*x+0.5))) }
	for y := range frameHeight {
		for x := range frameWidth {
			p := pixels[3*(y*frameWidth+x):][:3]
			m.SetRGBA(x, y, color.RGBA{level(p[0]), level(p[1]), level(p[2]), 255})
		}
	}
	return m
}
