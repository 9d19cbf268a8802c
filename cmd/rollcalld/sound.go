//go:build !control

package main

import "rollcall/attendance"

// sabotage is the identity in every build that is shipped. The build with the
// tag control, which only `make demo-control` makes, spoils the terminal to
// show that the demonstration would notice.
func sabotage(c attendance.TerminalConfig) attendance.TerminalConfig { return c }
