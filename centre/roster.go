package centre

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/text/width"

	"rollcall/attendance"
)

// rosterColumns are the columns of a CSV roster, in English and in Chinese.
// trainee and name must be there, and one of the numbers.
var rosterColumns = map[string]string{
	"trainee": "trainee", "学员编号": "trainee",
	"name": "name", "姓名": "name",
	"ssc_ident": "ssc_ident", "卡识别码": "ssc_ident",
	"card_no": "card_no", "卡号": "card_no",
	"person_no": "person_no", "社会保障号码": "person_no",
	"uid": "uid", "芯片序列号": "uid",
}

const columnNames = "trainee,name,ssc_ident,card_no,person_no,uid"

// ParseRoster reads a CSV roster (RFC 4180; UTF-8 or GB18030) with a line of
// column names. What is wrong is named by line, never by a number or name.
func ParseRoster(file []byte) ([]Person, error) {
	text, err := decodeText(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClassFile, err)
	}
	r := csv.NewReader(bytes.NewReader(text))
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrClassFile, csvFault(err))
	}
	columns, err := columnsOf(header)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClassFile, err)
	}
	var found problems
	var people []Person
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			found.add("%s", csvFault(err))
			break
		}
		line, _ := r.FieldPos(0)
		if len(people) == maxTrainees {
			found.add("line %d: more than %d trainees: split the class", line, maxTrainees)
			break
		}
		if strings.Join(row, "") == "" {
			continue // spreadsheets leave empty rows at the end
		}
		people = append(people, fromRow(columns, row).person(fmt.Sprintf("line %d", line), &found))
	}
	checkTrainees(people, &found)
	if err := found.err(); err != nil {
		return nil, err
	}
	return people, nil
}

func columnsOf(header []string) ([]string, error) {
	columns := make([]string, len(header))
	for i, title := range header {
		name, ok := rosterColumns[strings.ToLower(strings.TrimSpace(title))]
		if !ok {
			return nil, fmt.Errorf("line 1: column %d has no name this program knows: the columns are %s", i+1, columnNames)
		}
		if slices.Contains(columns, name) {
			return nil, fmt.Errorf("line 1: column %s is there twice", name)
		}
		columns[i] = name
	}
	for _, name := range []string{"trainee", "name"} {
		if !slices.Contains(columns, name) {
			return nil, fmt.Errorf("line 1: column %s is missing: the columns are %s", name, columnNames)
		}
	}
	return columns, nil
}

func csvFault(err error) string {
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		if errors.Is(err, csv.ErrFieldCount) {
			return fmt.Sprintf("line %d: it has more or fewer columns than line 1", parse.Line)
		}
		return fmt.Sprintf("line %d: a quote is missing or out of place", parse.Line)
	}
	return "the file is empty"
}

func fromRow(columns, row []string) personFile {
	var p personFile
	to := map[string]*string{"trainee": &p.Trainee, "name": &p.Name, "ssc_ident": &p.Ident, "card_no": &p.CardNo, "person_no": &p.PersonNo, "uid": &p.UID}
	for i, name := range columns {
		*to[name] = row[i]
	}
	return p
}

// person checks a row and brings its numbers to the form that is hashed.
func (f personFile) person(where string, found *problems) Person {
	id := strings.TrimSpace(f.Trainee)
	holder := f.holder(where, found)
	switch {
	case !validID(id):
		found.add("%s: trainee must be 1 to 64 letters, digits or hyphens", where)
	case holder.numbered(id):
		found.add("%s: trainee is a number of the person or card: records carry it, so it must be an id that says nothing to others", where)
	}
	if len(holder.numbers()) == 0 {
		found.add("%s: one of ssc_ident, card_no, person_no and uid must be given", where)
	}
	return Person{ID: attendance.TraineeID(id), Holder: holder, where: where}
}

// holder checks a name and numbers, of which any may be missing.
func (f holderFile) holder(where string, found *problems) Holder {
	name := strings.TrimSpace(f.Name)
	ident := strings.ToUpper(number(f.Ident))
	cardNo := strings.ToUpper(number(f.CardNo))
	personNo := attendance.NormalisePersonNo(number(f.PersonNo))
	uid := strings.ToUpper(number(f.UID))
	if !validName(name) {
		found.add("%s: name must be given, at most %d printable characters", where, maxName)
	}
	if uid != "" && !validUID(uid) {
		found.add("%s: uid must be 6 to 20 hexadecimal digits, as rollcalld's reader gives them%s", where, spreadsheet(uid))
	}
	if ident != "" && !attendance.ValidCardIdent(ident) {
		found.add("%s: ssc_ident must be 32 hexadecimal digits with D156000005 from the 7th on%s", where, spreadsheet(ident))
	}
	if cardNo != "" && !validCardNo(cardNo) {
		found.add("%s: card_no must be 9 letters and digits%s", where, spreadsheet(cardNo))
	}
	if personNo != "" {
		if fault := personNoFault(personNo); fault != "" {
			found.add("%s: person_no %s%s", where, fault, spreadsheet(personNo))
		}
	}
	return Holder{
		Name:  attendance.NewPersonName(name),
		Ident: attendance.NewCardIdent(ident), CardNo: attendance.NewCardNo(cardNo), PersonNo: attendance.NewPersonNo(personNo),
		UID: attendance.NewUID(uid),
	}
}

// numbered reports whether an id is one of the holder's numbers.
func (h Holder) numbered(id string) bool {
	return attendance.ValidPersonNo(attendance.NormalisePersonNo(id)) ||
		slices.ContainsFunc(h.numbers(), func(n [2]string) bool { return n[1] == id })
}

// numbers lists the kind and value of what is known.
func (h Holder) numbers() (out [][2]string) {
	for _, n := range [][2]string{
		{string(attendance.KeyIdent), h.Ident.Reveal()}, {string(attendance.KeyPersonNo), h.PersonNo.Reveal()},
		{string(attendance.KeyCardNo), h.CardNo.Reveal()}, {string(attendance.KeyUID), h.UID.Reveal()},
	} {
		if n[1] != "" {
			out = append(out, n)
		}
	}
	return out
}

// number takes off what typing and spreadsheets put around a number: spaces,
// full-width forms, a leading apostrophe.
func number(s string) string {
	return strings.TrimPrefix(strings.TrimSpace(width.Narrow.String(s)), "'")
}

func validCardNo(s string) bool {
	return len(s) == 9 && strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// validUID reports whether s may be the serial number of a chip: 3 to 10 bytes
// in hexadecimal (ISO 14443-3 has 4, 7 or 10; Wiegand 26 carries 3).
func validUID(s string) bool {
	return len(s) >= 6 && len(s) <= 20 && len(s)%2 == 0 && strings.Trim(s, "0123456789ABCDEF") == ""
}

// personNoFault says what is wrong with a normalised social security number.
// Those of foreigners begin with letters and have no check digit.
func personNoFault(s string) string {
	if strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || len(s) < 8 || len(s) > 18 {
		return "must be 18 digits, the last of which may be X"
	}
	if s[0] >= 'A' {
		return ""
	}
	if len(s) != 18 {
		return "must have 18 digits"
	}
	if !attendance.ValidPersonNo(s) {
		return "has a wrong check digit (GB 11643)"
	}
	return ""
}

// spreadsheet recognises what is left of a long number in a column that was
// not formatted as text.
func spreadsheet(s string) string {
	if strings.Contains(s, "E+") || strings.HasSuffix(s, "000") {
		return "; the spreadsheet seems to have rounded it: format the column as text and enter it again"
	}
	return ""
}

// checkTrainees looks for people and cards that are there twice.
func checkTrainees(people []Person, found *problems) {
	if len(people) == 0 {
		found.add("there is no trainee")
	}
	if len(people) > maxTrainees {
		found.add("%d trainees, at most %d: split the class", len(people), maxTrainees)
	}
	seen := map[[2]string]string{}
	for _, p := range people {
		for _, k := range [][2]string{
			{"trainee", string(p.ID)},
			{"ssc_ident", p.Ident.Reveal()},
			{"card_no", p.CardNo.Reveal()},
			{"person_no", p.PersonNo.Reveal()},
			{"uid", p.UID.Reveal()},
		} {
			if k[1] == "" {
				continue
			}
			if first, twice := seen[k]; twice {
				found.add("%s: the same %s as %s", p.where, k[0], first)
				continue
			}
			seen[k] = p.where
		}
	}
}
