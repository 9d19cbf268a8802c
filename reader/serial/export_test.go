package serial

// Port is the seam under the driver.
type Port = port

// OpenWith has the driver open its device by open.
func (d *Driver) OpenWith(open func(path string, speed int) (Port, error)) { d.open = open }

// OpenPort opens a device file.
func OpenPort(path string, speed int) (Port, error) { return openPort(path, speed) }

// Opening gives meaning to an error of opening a device.
var Opening = opening
