package reader

import (
	"fmt"
	"strings"
	"time"

	"rollcall/attendance"
)

// ParsePersonNo checks a social security number and gives its one form: 18
// characters, X in upper case. A number that starts with a digit must be a
// resident identity number with a true date and check digit (GB 11643-1999), or
// an old one of 15 digits, which becomes its new form. Foreigners' numbers
// start with a letter and follow no rule that could be checked: they are kept
// as they are. Region codes are not judged. Errors are ErrBadNumber.
func ParsePersonNo(s string) (attendance.PersonNo, error) {
	s = attendance.NormalisePersonNo(s)
	if s != "" && isLetter(s[0]) {
		if len(s) < 6 || len(s) > 18 || !isAlnum(s) {
			return attendance.PersonNo{}, fmt.Errorf("foreigner's number: %w", ErrBadNumber)
		}
		return attendance.NewPersonNo(s), nil
	}
	if !attendance.ValidPersonNo(s) {
		return attendance.PersonNo{}, fmt.Errorf("length or check digit: %w", ErrBadNumber)
	}
	if !isDate(s[6:14]) {
		return attendance.PersonNo{}, fmt.Errorf("date of birth: %w", ErrBadNumber)
	}
	return attendance.NewPersonNo(s), nil
}

// ParseCardIdent checks a card identification code (卡的识别码): 32 hexadecimal
// digits, of which digits 7 to 16 name the social security system. Errors are
// ErrBadFormat.
func ParseCardIdent(s string) (attendance.CardIdent, error) {
	s = strings.ToUpper(s)
	if !attendance.ValidCardIdent(s) {
		return attendance.CardIdent{}, fmt.Errorf("card identification code: %w", ErrBadFormat)
	}
	return attendance.NewCardIdent(s), nil
}

// ParseCardNo checks a card number (卡号): up to 9 letters and digits. Errors
// are ErrBadFormat.
func ParseCardNo(s string) (attendance.CardNo, error) {
	s = strings.ToUpper(s)
	if s == "" || len(s) > 9 || !isAlnum(s) {
		return attendance.CardNo{}, fmt.Errorf("card number: %w", ErrBadFormat)
	}
	return attendance.NewCardNo(s), nil
}

// isDate reports whether s is a day of the calendar, YYYYMMDD.
func isDate(s string) bool {
	_, err := time.Parse("20060102", s)
	return err == nil
}

func isAlnum(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }) < 0
}

func isLetter(b byte) bool { return b >= 'A' && b <= 'Z' }
