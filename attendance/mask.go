package attendance

import (
	"strings"
	"unicode"
)

// compoundSurnames lists the two-character surnames that are in use; the first
// of them in a name is shown whole.
var compoundSurnames = map[string]bool{}

func init() {
	const list = "欧阳 太史 端木 上官 司马 东方 独孤 南宫 万俟 闻人 夏侯 诸葛 尉迟 公羊 赫连 澹台 皇甫 宗政 濮阳 公冶 太叔 申屠 公孙 慕容 " +
		"仲孙 钟离 长孙 宇文 司徒 鲜于 司空 闾丘 子车 亓官 司寇 巫马 公西 颛孙 壤驷 公良 漆雕 乐正 宰父 谷梁 拓跋 夹谷 轩辕 令狐 段干 " +
		"百里 呼延 东郭 南门 羊舌 微生 梁丘 左丘 东门 西门 第五 纳兰 完颜 叶赫 歐陽 司馬 諸葛 東方 獨孤 赫連 長孫 鮮于 軒轅 公孫 尉遲"
	for name := range strings.FieldsSeq(list) {
		compoundSurnames[name] = true
	}
}

// MaskName is the one way a name becomes what a screen may show: 张小明 gives
// 张*明, 李明 gives 李*, 欧阳娜娜 gives 欧阳*娜. A name in parts (with a dot,
// a hyphen or spaces between, as minority and Latin names have) keeps the
// first letter of each part that has more than one. At least one character is always hidden, and
// nothing is shown that is not in the name.
func MaskName(name string) string {
	runes := []rune(strings.TrimSpace(name))
	if isHan(runes) {
		return maskHan(without(runes, unicode.IsSpace))
	}
	return maskParts(runes)
}

// isHan reports whether a name is Chinese characters, spaces apart: 李　明 is
// two characters, spread for the look of a list.
func isHan(name []rune) bool {
	for _, r := range name {
		if !unicode.Is(unicode.Han, r) && !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

func without(name []rune, drop func(rune) bool) []rune {
	var out []rune
	for _, r := range name {
		if !drop(r) {
			out = append(out, r)
		}
	}
	return out
}

func maskHan(name []rune) string {
	first := 1
	if len(name) > 2 && compoundSurnames[string(name[:2])] {
		first = 2
	}
	last := len(name)
	if last > first+1 {
		last-- // the last character of a given name of two or more is shown
	}
	if len(name) == 1 {
		first = 0
	}
	for i := first; i < last; i++ {
		name[i] = '*'
	}
	return string(name)
}

func maskParts(name []rune) string {
	for i := 0; i < len(name); {
		end, letters := i, 0
		for ; end < len(name) && !betweenParts(name[end]); end++ {
			if unicode.IsLetter(name[end]) {
				letters++
			}
		}
		shown := i
		if letters > 1 {
			shown++
		}
		for ; shown < end; shown++ {
			name[shown] = '*'
		}
		i = end + 1
	}
	return string(name)
}

func betweenParts(r rune) bool {
	return unicode.IsSpace(r) || strings.ContainsRune("·•‧・．.-'’", r)
}

// MaskNumber is the one way a card's or person's number becomes what a screen
// may show: 11010519491231002X gives 110105********002X, a card number of 9
// characters A1*****78. Shorter ones are hidden whole, and what is not plain
// letters and digits too.
func MaskNumber(number string) string {
	shown := 0 // at each end
	first := 0 // more at the start
	switch n := len(number); {
	case strings.Trim(strings.ToUpper(number), "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
	case n >= 15:
		shown, first = 4, 2
	case n >= 8:
		shown = 2
	}
	stars := strings.Repeat("*", max(1, len(number)-2*shown-first))
	if shown == 0 {
		return stars
	}
	return number[:shown+first] + stars + number[len(number)-shown:]
}
