package serial_test

import (
	"strings"

	"rollcall/attendance"
)

// show writes what a credential says.
func show(c attendance.Credential) string {
	return strings.Join(strings.Fields(strings.Join([]string{
		c.PersonNo.Reveal(), c.Name.Reveal(), c.ValidTo, c.UID.Reveal(), c.Code.Reveal(),
	}, " ")), " ")
}
