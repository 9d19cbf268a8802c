package attendance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// 11010519491231002X and 440524188001010014 are the sample numbers printed in
// GB 11643-1999; the others are made up.
func TestNormalisePersonNo(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"as it is", "440524188001010014", "440524188001010014"},
		{"small x", "11010519491231002x", "11010519491231002X"},
		{"spaces around", " 11010519491231002X\n", "11010519491231002X"},
		{"15 digits", "110105491231002", "11010519491231002X"},
		{"15 characters, not all digits", "abc123456789012", "ABC123456789012"},
		{"empty", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, NormalisePersonNo(tt.in)) })
	}
}

func TestValidPersonNo(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"sample with X", "11010519491231002X", true},
		{"sample with digit", "440524188001010014", true},
		{"small x is not normalised", "11010519491231002x", false},
		{"15 digits are not normalised", "110105491231002", false},
		{"X inside", "1101051949123100X2", false},
		{"letters", "ABC123456789012345", false},
		{"19 digits", "4405241880010100140", false},
		{"empty", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, ValidPersonNo(tt.in)) })
	}
	t.Run("every single wrong digit is caught", func(t *testing.T) {
		for _, number := range []string{"11010519491231002X", "440524188001010014"} {
			for i := range number {
				for _, d := range "0123456789X" {
					changed := number[:i] + string(d) + number[i+1:]
					assert.Equal(t, changed == number, ValidPersonNo(changed))
				}
			}
		}
	})
}

func TestValidCardIdent(t *testing.T) {
	good := "110000" + "D156000005" + "0123456789ABCDEF"
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"good", good, true},
		{"lower case is not normalised", strings.ToLower(good), false},
		{"another identifier", strings.Replace(good, "D156000005", "D156000015", 1), false},
		{"too short", good[1:], false},
		{"not hexadecimal", good[:31] + "G", false},
		{"empty", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, ValidCardIdent(tt.in)) })
	}
}

func FuzzNormalisePersonNo(f *testing.F) {
	for _, s := range []string{"11010519491231002x", "110105491231002", "", "ß", "１２３"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := NormalisePersonNo(s)
		if len(once) <= 18 && NormalisePersonNo(once) != once {
			t.Errorf("not stable for %d bytes", len(s))
		}
		if len(s) == 15 && allDigits(s) && !ValidPersonNo(once) {
			t.Error("a 15-digit number did not become a valid one")
		}
		_, _ = ValidPersonNo(s), ValidCardIdent(s)
	})
}

func ExampleMaskName() {
	fmt.Println(MaskName("张小明"), MaskName("李明"), MaskName("欧阳娜娜"))
	// Output: 张*明 李* 欧阳*娜
}
