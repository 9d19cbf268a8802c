package simulator

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"rollcall/attendance"
	"rollcall/reader"
)

// Holder is what is written on a card. Every holder here is invented.
type Holder struct {
	Ident    string // card identification code, 32 hexadecimal digits
	CardNo   string // 9 characters
	PersonNo string // 18 characters
	Name     string
	Spec     string // specification version: "1.00", "2.00", "3.00"
	Issued   string // YYYYMMDD; empty leaves the record blank
	ValidTo  string // YYYYMMDD; empty leaves the record blank
	Padding  byte   // behind a name's extension: 00, or FF as one personalisation program writes it
}

// InventHolder gives the n-th invented holder, the same for the same n, n from
// 0 to 9,999,999. The numbers pass every check, and belong to nobody: there is
// no region 990000.
func InventHolder(n int) Holder {
	born := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n/1000)
	body := "990000" + born.Format("20060102") + fmt.Sprintf("%03d", n%1000)
	family, given := []rune("赵钱孙李周吴郑王冯陈"), []rune("伟芳娜敏静丽强磊军洋")
	return Holder{
		Ident:    fmt.Sprintf("990000D156000005%08XFFFFFFFF", n),
		CardNo:   fmt.Sprintf("Z%08d", n),
		PersonNo: body + string(attendance.CheckDigit(body)),
		Name:     string([]rune{family[n%10], given[n/10%10], given[n/100%10]}),
		Spec:     "2.00",
		Issued:   "20150601",
		ValidTo:  "20350531",
	}
}

type cardFile struct {
	fid     uint16
	sfi     byte
	holder  bool
	records []cardRecord
}

// record gives the bytes of a record by its item's name, nil if there is none.
func (f cardFile) record(name string) []byte {
	for _, r := range f.records {
		if r.name == name {
			return r.bytes
		}
	}
	return nil
}

type cardRecord struct {
	name  string
	tag   byte
	num   byte
	bytes []byte // tag, length, value
}

// others are records that real cards have besides those a terminal reads.
var others = map[uint16][]cardRecord{
	0xEF05: {
		{name: "card_class", tag: 0x02, num: 2, bytes: []byte{0x02, 1, '1'}},
		{name: "initialiser", tag: 0x04, num: 4, bytes: slices.Concat([]byte{0x04, 12}, bytes.Repeat([]byte{0x99}, 12))},
	},
	0xEF06: {
		{name: "sex", tag: 0x0A, bytes: []byte{0x0A, 1, '2'}},
		{name: "nation", tag: 0x0B, bytes: []byte{0x0B, 1, 0x01}},
		{name: "birth_place", tag: 0x0C, bytes: []byte{0x0C, 3, 0x99, 0x00, 0x00}},
		{name: "birth_date", tag: 0x0D, bytes: []byte{0x0D, 4, 0x19, 0x70, 0x01, 0x01}},
	},
}

// records writes the holder's data into a file. Records without a number of
// their own are numbered in their order; the name extension came with 2.00.
func (h Holder) records(f reader.File) []cardRecord {
	var records []cardRecord
	for _, it := range f.Items {
		if it.Name == "name_ext" && h.Spec < "2" {
			continue
		}
		records = append(records, cardRecord{
			name: it.Name, tag: it.Tag[0], num: it.Rec,
			bytes: slices.Concat(it.Tag, []byte{byte(it.Len)}, h.value(it)),
		})
	}
	records = append(records, others[uint16(f.FID[0])<<8|uint16(f.FID[1])]...)
	for i := range records {
		if records[i].num == 0 {
			records[i].num = byte(i + 1)
		}
	}
	return records
}

// nameLen is how many bytes of a name the record 09 holds; the rest goes into
// the record 4E.
const nameLen = 30

// value writes an item as the card holds it, by the forms of the profile.
func (h Holder) value(it reader.Item) []byte {
	var b []byte
	fill := byte(0x00)
	switch it.Name {
	case "card_ident":
		b = unhex(h.Ident)
	case "spec_version":
		b = []byte(h.Spec)
	case "issued":
		b = unhex(h.Issued)
	case "valid_to":
		b = unhex(h.ValidTo)
	case "card_no":
		b = []byte(h.CardNo)
	case "person_no":
		b = []byte(h.PersonNo)
	case "name":
		b = gbk(h.Name)
		b = b[:min(len(b), nameLen)]
	case "name_ext":
		b = gbk(h.Name)
		b = b[min(len(b), nameLen):]
		fill = h.Padding
	default:
		panic("simulator: no value for card item " + it.Name)
	}
	if it.Enc == "date" {
		fill = 0xFF
	}
	if len(b) > it.Len {
		panic("simulator: value too long for card item " + it.Name)
	}
	return append(b, bytes.Repeat([]byte{fill}, it.Len-len(b))...)
}

func gbk(s string) []byte {
	b, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(s))
	if err != nil {
		panic("simulator: name of a holder: " + err.Error())
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		panic("simulator: number of a holder: " + err.Error())
	}
	return b
}
