// Package opencv is the only place that sees OpenCV. It gives [Camera], a
// stream of pictures from a device, a network address or a file, and [Nets],
// the check of one picture: find faces, align, embed, judge liveness.
//
// No OpenCV matrix leaves the package and no C++ exception passes it: OpenCV's
// errors come back as Go errors. What only a signal can end (a read from a
// camera that went silent) needs a deadline outside the process.
//
// A Camera, a Picture and a Nets each belong to one goroutine at a time.
//
// Video and pictures go through gocv; the nets through a small C++ shim of our
// own, because gocv's dnn does not compile on OpenCV 4.6 (Debian 12). The
// package needs the build tags
// "opencv gocv_specific_modules gocv_calib3d gocv_videoio"; without them it
// builds to a stub whose every call says so.
package opencv
