package attendance

import "strings"

// personNoWeights and personNoChecks are those of GB 11643-1999 clause 5
// (ISO 7064 MOD 11-2).
var personNoWeights = [17]int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}

const personNoChecks = "10X98765432"

// NormalisePersonNo brings a social security number to the form that is
// hashed: no spaces around it, letters in upper case, and the 15-digit form of
// before 1999 written as 18 characters. It checks nothing: see [ValidPersonNo].
func NormalisePersonNo(s string) string {
	s = strings.ToUpper(strings.TrimSpace(s))
	if len(s) == 15 && allDigits(s) {
		s = s[:6] + "19" + s[6:]
		s += string(CheckDigit(s))
	}
	return s
}

// ValidPersonNo reports whether s is a normalised resident identity number with
// the right check digit (GB 11643-1999). Regions are not looked up: they
// change. Foreigners' social security numbers do not follow this rule.
func ValidPersonNo(s string) bool {
	return len(s) == 18 && allDigits(s[:17]) && CheckDigit(s) == s[17]
}

// CheckDigit gives the eighteenth character of a resident identity number from
// its first seventeen, which must be digits.
func CheckDigit(digits string) byte {
	sum := 0
	for i, w := range personNoWeights {
		sum += w * int(digits[i]-'0')
	}
	return personNoChecks[sum%11]
}

// ValidCardIdent reports whether s is a card identification code in the form
// that is hashed: 32 upper-case hexadecimal digits, the 7th to the 16th of
// them D156000005, the registered identifier of the social security card.
func ValidCardIdent(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789ABCDEF") == "" && s[6:16] == "D156000005"
}

func allDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
