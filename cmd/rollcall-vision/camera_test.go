//go:build cgo && opencv

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/big"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
	"rollcall/vision"
	"rollcall/vision/opencv"
)

func configFor(camera string) Config {
	return Config{Camera: camera, Width: 640, Height: 480, MaxPixels: 1 << 22}
}

// TestF8EachFaultHasItsReason holds that what is wrong with a camera can be
// told apart, and that no address is repeated.
func TestF8EachFaultHasItsReason(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + listener.Addr().String() + "/secret"
	require.NoError(t, listener.Close())
	serve := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL + "/secret"
	}
	dir := t.TempDir()
	text := filepath.Join(dir, "secret.mp4")
	require.NoError(t, os.WriteFile(text, []byte("no video"), 0o600))
	for name, c := range map[string]struct {
		camera string
		code   vision.Code
		says   string
	}{
		"nobody listens":     {nobody, vision.CodeCamera, "does not answer"},
		"404":                {serve(404, ""), vision.CodeAddress, "404"},
		"a page":             {serve(200, "<html>hello</html>"), vision.CodeAddress, "no video"},
		"a password":         {serve(401, ""), vision.CodeRights, "password"},
		"an error":           {serve(500, ""), vision.CodeCamera, "500"},
		"no such device":     {"/dev/video199", vision.CodeCamera, "plug it in"},
		"no such socket":     {"/dev/v4l/by-path/secret", vision.CodeCamera, "the same socket"},
		"a file of no video": {text, vision.CodeAddress, "no video"},
		"an empty folder":    {t.TempDir(), vision.CodeAddress, "no video"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openCamera(configFor(c.camera))
			require.Error(t, err)
			assert.Equal(t, c.code, troubleOf(err))
			assert.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

// certified is a server with a certificate of its own, at an address or any.
func certified(t *testing.T, handler http.Handler, address string) (server *httptest.Server, certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "camera"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	require.NoError(t, err)
	server = httptest.NewUnstartedServer(handler)
	if address != "" {
		require.NoError(t, server.Listener.Close())
		server.Listener, err = net.Listen("tcp", address)
		require.NoError(t, err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	certificate = filepath.Join(t.TempDir(), "camera.pem")
	require.NoError(t, os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return server, certificate
}

// TestT6AnotherServerIsRefused puts another server at the camera's address;
// the control is the camera itself.
func TestT6AnotherServerIsRefused(t *testing.T) {
	t.Setenv(ffmpegOptions, "")
	camera, certificate := certified(t, simulator.NewCamera(), "")
	config := configFor(camera.URL)
	config.CameraCertificate = certificate
	opened, err := openCamera(config)
	require.NoError(t, err)
	p := opencv.NewPicture()
	defer p.Close()
	require.True(t, opened.Read(p))
	opened.Close()
	address := camera.Listener.Addr().String()
	camera.CloseClientConnections()
	camera.Close()

	certified(t, simulator.NewCamera(), address)
	_, err = openCamera(config)
	require.Error(t, err)
	assert.Equal(t, vision.CodeIdentity, troubleOf(err))
	assert.ErrorContains(t, err, "another camera or server")

	// FFmpeg connects by itself after the look at the certificate, and is bound to it too.
	require.Contains(t, os.Getenv(ffmpegOptions), certificate)
	_, err = opencv.OpenCamera(config.Camera, 640, 480)
	assert.ErrorIs(t, err, opencv.ErrNoCamera)
	t.Setenv(ffmpegOptions, "")
	free, err := opencv.OpenCamera(config.Camera, 640, 480)
	require.NoError(t, err, "without the binding the other server is taken")
	free.Close()

	for name, path := range map[string]string{"absent": "/nowhere.pem", "no certificate": "camera_test.go"} {
		config.CameraCertificate = path
		_, err := openCamera(config)
		require.Error(t, err, name)
		assert.Equal(t, vision.CodeIdentity, troubleOf(err))
		assert.ErrorContains(t, err, "camera_certificate")
	}
}

func TestStablePathsFollowTheDevice(t *testing.T) {
	got, err := devicePath("/dev/video0")
	require.NoError(t, err)
	assert.Equal(t, "/dev/video0", got)
	link := filepath.Join(t.TempDir(), "usb-0:1.2:1.0-video-index0")
	_, err = follow(link)
	assert.Equal(t, vision.CodeCamera, troubleOf(err), "not plugged in")
	require.NoError(t, os.Symlink("/dev/null", link))
	_, err = follow(link)
	assert.Equal(t, vision.CodeAddress, troubleOf(err), "a path that leads to no camera")
}

// frames serves JPEGs of one size without end.
func frames(w, h int) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		out := multipart.NewWriter(answer)
		answer.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+out.Boundary())
		var b strings.Builder
		m := image.NewGray(image.Rect(0, 0, w, h))
		for i := range m.Pix {
			m.Pix[i] = byte(i)
		}
		_ = jpeg.Encode(&b, m, nil)
		for r.Context().Err() == nil {
			part, err := out.CreatePart(map[string][]string{"Content-Type": {"image/jpeg"}, "Content-Length": {fmt.Sprint(b.Len())}})
			if err != nil {
				return
			}
			if _, err := part.Write([]byte(b.String())); err != nil {
				return
			}
		}
	})
}

// TestF8AWrongSizeIsSaid serves frames of more pixels than allowed.
func TestF8AWrongSizeIsSaid(t *testing.T) {
	server := httptest.NewServer(frames(2400, 2000))
	defer server.Close()
	defer server.CloseClientConnections()
	c, err := openCamera(configFor(server.URL))
	require.NoError(t, err)
	defer c.Close()
	p := opencv.NewPicture()
	defer p.Close()
	require.True(t, c.Read(p))
	assert.True(t, tooLarge(p, 1<<22))
	assert.False(t, tooLarge(p, 1<<23))
}

func TestAFolderIsACamera(t *testing.T) {
	dir := t.TempDir()
	for i, side := range []int{40, 60} {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.jpg", i)))
		require.NoError(t, err)
		m := image.NewRGBA(image.Rect(0, 0, side, side))
		m.Set(1, 1, color.White)
		require.NoError(t, jpeg.Encode(f, m, nil))
		require.NoError(t, f.Close())
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "05.jpg"), []byte("broken"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "readme.txt"), []byte("x"), 0o600))
	c, err := openCamera(configFor(dir))
	require.NoError(t, err)
	defer c.Close()
	p := opencv.NewPicture()
	defer p.Close()
	var widths []int
	for c.Read(p) {
		w, _ := p.Size()
		widths = append(widths, w)
	}
	assert.Equal(t, []int{40, 60}, widths, "by name, once, and what is no picture is left out")
	assert.False(t, c.Skip())
}
