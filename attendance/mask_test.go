package attendance

import (
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestMaskName(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"two characters", "李明", "李*"},
		{"three", "张小明", "张*明"},
		{"four", "张小小明", "张**明"},
		{"one", "张", "*"},
		{"compound surname, one more", "欧阳娜", "欧阳*"},
		{"compound surname, two more", "欧阳娜娜", "欧阳*娜"},
		{"compound surname, traditional", "歐陽娜娜", "歐陽*娜"},
		{"compound surname as a whole name", "欧阳", "欧*"},
		{"spread over a column", "李　 明", "李*"},
		{"spaces around", " 张小明 ", "张*明"},
		{"rare character outside the basic plane", "𠮷田明", "𠮷*明"},
		{"minority name", "阿依古丽·买买提", "阿***·买**"},
		{"minority name, other dot", "阿依古丽•买买提", "阿***•买**"},
		{"minority name, a part of one", "买·买提", "*·买*"},
		{"latin", "John Smith", "J*** S****"},
		{"latin, three parts", "Anna-Maria O'Neill", "A***-M**** *'N****"},
		{"latin, an initial", "J Smith", "* S****"},
		{"cyrillic", "Иван Петров", "И*** П*****"},
		{"mixed", "王Tom", "王***"},
		{"empty", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, MaskName(tt.in)) })
	}
}

// Whatever the name: as long as it (spaces in Chinese names apart), nothing
// new in it, and at least one letter of it hidden.
func FuzzMaskName(f *testing.F) {
	for _, s := range []string{"张小明", "欧阳娜娜", "阿依古丽·买买提", "John Smith", "A", "· ·", "e\u0301e\u0301", "a*b", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		masked := MaskName(name)
		if !utf8.ValidString(name) {
			assert.True(t, utf8.ValidString(masked))
			return
		}
		letters, hidden := 0, 0
		in := []rune(name)
		for _, r := range masked {
			for len(in) > 0 && in[0] != r && unicode.IsSpace(in[0]) {
				in = in[1:]
			}
			if len(in) == 0 || (r != '*' && r != in[0]) {
				t.Fatal("the masked name has something that the name has not")
			}
			if r == '*' && in[0] != '*' {
				hidden++
			}
			in = in[1:]
		}
		for _, r := range name {
			if unicode.IsLetter(r) && !betweenParts(r) {
				letters++
			}
		}
		if letters > 0 && hidden == 0 {
			t.Error("nothing is hidden")
		}
	})
}

func TestMaskNumber(t *testing.T) {
	for number, want := range map[string]string{
		"11010519491231002X":               "110105********002X",
		"110105491231002":                  "110105*****1002",
		"990000D1560000050000000AFFFFFFFF": "990000**********************FFFF",
		"A12345678":                        "A1*****78",
		"USA0123456":                       "US******56",
		"1234567":                          "*******",
		"":                                 "*",
		"110105 9491231002X":               "******************",
		"王小明王小明":                           "******************",
	} {
		assert.Equal(t, want, MaskNumber(number))
	}
}
