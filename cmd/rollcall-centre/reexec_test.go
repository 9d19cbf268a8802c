package main

import (
	"os"
	"testing"

	"rollcall/centre/centretest"
)

// TestMain lets the test binary be the program, so that tests can kill it.
func TestMain(m *testing.M) {
	if os.Getenv("ROLLCALL_CENTRE_IS_THE_PROGRAM") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(centretest.Main(m))
}
