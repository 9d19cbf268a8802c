package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rollcall/vision"
	"rollcall/vision/opencv"
)

// trouble is why a camera gives no frames, for who branches on it and in words
// for the caretaker. The words do not repeat the address, which may hold a
// password.
type trouble struct {
	code vision.Code
	text string
}

func (t trouble) Error() string { return t.text }

func troubleOf(err error) vision.Code {
	if t := (trouble{}); errors.As(err, &t) {
		return t.code
	}
	return vision.CodeCamera
}

// probeDeadline bounds the look at a camera that could not be opened, or whose
// certificate is pinned. With the opening itself it stays below the daemon's
// deadline.
const probeDeadline = 2 * time.Second

// openCamera opens the camera of the configuration and says in words why it
// cannot.
func openCamera(c Config) (*opencv.Camera, error) {
	address, err := devicePath(c.Camera)
	if err != nil {
		return nil, err
	}
	if c.CameraCertificate != "" {
		if err := pin(c); err != nil {
			return nil, err
		}
	}
	camera, err := opencv.OpenCamera(address, c.Width, c.Height)
	if err != nil {
		return nil, diagnose(address, err)
	}
	return camera, nil
}

// devicePath follows a stable path to the device that it stands for now.
func devicePath(address string) (string, error) {
	if !strings.HasPrefix(address, "/dev/v4l/") {
		return address, nil
	}
	return follow(address)
}

func follow(path string) (string, error) {
	device, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", trouble{vision.CodeCamera, "camera is not at its place: plug it into the same socket as before, or correct its path"}
	}
	if err != nil || !strings.HasPrefix(device, "/dev/video") {
		return "", trouble{vision.CodeAddress, "camera's path leads to no video device: correct it"}
	}
	return device, nil
}

// pin makes sure that the camera has the certificate of the configuration, to
// the bit, and binds FFmpeg, which connects anew, to that certificate too.
func pin(c Config) error {
	want, err := readCertificate(c.CameraCertificate)
	if err != nil {
		return trouble{vision.CodeIdentity, err.Error()}
	}
	u, err := url.Parse(c.Camera)
	if err != nil {
		return trouble{vision.CodeAddress, "camera: not an address"}
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: probeDeadline},
		Config: &tls.Config{
			InsecureSkipVerify: true, // the certificate itself is compared below, names and issuers do not matter
			VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
				if len(raw) == 0 || !bytes.Equal(raw[0], want.Raw) {
					return trouble{vision.CodeIdentity, "another camera or server answers at the camera's address: see who changed it; if you did, put its certificate into the configuration"}
				}
				return nil
			},
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeDeadline)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		if t := (trouble{}); errors.As(err, &t) {
			return t
		}
		return opencv.ErrNoCamera
	}
	_ = conn.Close()
	return bindFFmpeg(c.CameraCertificate, want)
}

// readCertificate takes the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("camera_certificate cannot be read: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("camera_certificate: no certificate in that file: it must be PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("camera_certificate: %w", err)
	}
	return certificate, nil
}

// ffmpegOptions is the variable that OpenCV hands to FFmpeg: pairs parted by |.
const ffmpegOptions = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

// bindFFmpeg lets FFmpeg trust that certificate alone, under its own name.
func bindFFmpeg(path string, certificate *x509.Certificate) error {
	name := certificate.Subject.CommonName
	if len(certificate.DNSNames) > 0 {
		name = certificate.DNSNames[0]
	} else if len(certificate.IPAddresses) > 0 {
		name = certificate.IPAddresses[0].String()
	}
	if strings.ContainsAny(path+name, "|;") {
		return trouble{vision.CodeIdentity, "camera_certificate: its path and name must hold no | and no ;"}
	}
	options := fmt.Sprintf("tls_verify;1|ca_file;%s|verifyhost;%s", path, name)
	if own := os.Getenv(ffmpegOptions); own != "" && !strings.Contains(own, "tls_verify;") {
		options = own + "|" + options
	}
	return os.Setenv(ffmpegOptions, options)
}

// diagnose finds out why a camera could not be opened.
func diagnose(address string, err error) error {
	scheme, _, isURL := strings.Cut(address, "://")
	switch {
	case !isURL:
		return diagnoseFile(address, err)
	case scheme == "http", scheme == "https":
		return diagnoseHTTP(address, err)
	}
	return err
}

func diagnoseFile(path string, err error) error {
	f, openErr := os.OpenFile(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(openErr, fs.ErrPermission):
		return trouble{vision.CodeRights, "camera may not be opened by this user: put it into the group video"}
	case errors.Is(openErr, fs.ErrNotExist):
		return trouble{vision.CodeCamera, "camera is not there: plug it in, or correct its path"}
	case openErr != nil:
		return err
	}
	_ = f.Close()
	return trouble{vision.CodeAddress, "camera's path gives no video: correct it"}
}

func diagnoseHTTP(address string, err error) error {
	client := http.Client{
		Timeout:   probeDeadline,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, // only asks what is wrong
	}
	answer, askErr := client.Get(address)
	if askErr != nil {
		return err
	}
	_ = answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return trouble{vision.CodeRights, "camera wants another user name or password: correct them in its address"}
	case http.StatusNotFound:
		return trouble{vision.CodeAddress, "camera answers and has no video at that address (404): correct the address's path"}
	case http.StatusOK:
		return trouble{vision.CodeAddress, "camera answers with something that is no video: correct the address's path"}
	}
	return trouble{vision.CodeCamera, fmt.Sprintf("camera answers with an error (%d): switch it off and on", answer.StatusCode)}
}
