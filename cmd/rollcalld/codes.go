package main

import (
	"errors"
	"fmt"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// codeOpener opens class codes without network: against the package key that
// was pinned when the terminal was admitted.
func codeOpener(trust chain.Trust, terminal chain.TerminalID) attendance.CodeOpener {
	return func(text string) (attendance.ClassCode, error) {
		payload, err := chain.Open(trust.Package, chain.PurposeCode, []byte(text))
		if errors.Is(err, chain.ErrMalformed) {
			return attendance.ClassCode{}, attendance.ErrNotClassCode
		}
		if err != nil {
			return attendance.ClassCode{}, err
		}
		code, err := attendance.ParseClassCode(payload)
		if err != nil {
			return attendance.ClassCode{}, err
		}
		if code.Terminal != string(terminal) {
			return attendance.ClassCode{}, fmt.Errorf("%w: it is for terminal %s", attendance.ErrClassCode, code.Terminal)
		}
		return code, nil
	}
}
