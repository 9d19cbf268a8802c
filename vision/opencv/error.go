package opencv

import "errors"

// ErrNoCamera means that the camera does not answer or gives no video.
var ErrNoCamera = errors.New("camera does not answer: check that it has power, is plugged in, and stands at the configured address")
