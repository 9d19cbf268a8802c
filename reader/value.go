package reader

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// blank reports whether a record's value is only filling: 00, FF or spaces,
// each of which is seen on cards and means that the item is absent.
func blank(b []byte) bool { return len(unfilled(b)) == 0 }

// unfilled cuts the filling off a text. None of the fillers can end a GB18030
// character.
func unfilled(b []byte) []byte {
	n := len(b)
	for n > 0 && (b[n-1] == 0x00 || b[n-1] == 0xFF || b[n-1] == ' ') {
		n--
	}
	return b[:n]
}

// parseText reads an AN item: printable ASCII.
func parseText(b []byte) (string, error) {
	b = unfilled(b)
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("text: %w", ErrBadFormat)
		}
	}
	return string(b), nil
}

// parseDate reads a packed date and gives it as 2006-01-02.
func parseDate(b []byte) (string, error) {
	s := fmt.Sprintf("%X", b)
	if !isDate(s) {
		return "", fmt.Errorf("date: %w", ErrBadFormat)
	}
	return s[:4] + "-" + s[4:6] + "-" + s[6:], nil
}

// parseName reads a name in GB18030, a superset of the cards' GBK in which the
// rare characters of names come out right. It must be given whole: a
// character may stand on the border between the name and its extension.
func parseName(b []byte) (string, error) {
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(unfilled(b))
	if err != nil {
		return "", fmt.Errorf("name: %w", ErrBadFormat)
	}
	// The decoder reports bad bytes only by writing U+FFFD.
	// Control and direction marks have no place in a name; private-use
	// characters have, where a rare one had no code of its own.
	if bytes.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || unicode.In(r, unicode.Cc, unicode.Cf) }) {
		return "", fmt.Errorf("name: %w", ErrBadFormat)
	}
	return strings.TrimSpace(string(text)), nil
}
