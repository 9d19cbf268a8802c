package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rollcall/attendance"
)

// Read reads the card by a profile. The credential is partial if the card
// refuses the holder's file, and its level is the one that was earned: Doubt
// says why no higher. A card that gives unusable data is read a second time from
// the start, because it is mostly its contacts. Errors wrap a sentinel of this
// package and name the step and status word, never data; with an error the
// credential is empty. ctx limits the whole read: its deadline gives ErrTimeout.
func (c *Card) Read(ctx context.Context, p *Profile) (attendance.Credential, error) {
	cred, err := c.readOnce(ctx, p)
	if errors.Is(err, ErrBadFormat) {
		cred, err = c.readOnce(ctx, p)
	}
	if err != nil {
		return attendance.Credential{}, err
	}
	return cred, nil
}

// Doubt says why the level of the last reading is no higher than it is, nil if
// it is the highest, or if there was no PSAM to earn more with. It wraps one of
// ErrAlgorithm, ErrNotProved, ErrNotOpened, ErrPSAMFailed, ErrPSAMAside and
// ErrBadFormat.
func (c *Card) Doubt() error { return c.doubt }

// reading is one attempt to read a card.
type reading struct {
	card    *Card
	profile *Profile
	fci     []byte            // what the application says of itself; empty without a PSAM
	values  map[string][]byte // of the items, by name
	refused *File             // the file the card kept closed, nil if none
	level   attendance.CardLevel
}

func (c *Card) readOnce(ctx context.Context, p *Profile) (cred attendance.Credential, err error) {
	c.doubt = nil
	r := &reading{card: c, profile: p, values: map[string][]byte{}, level: attendance.LevelFile}
	if err := r.selectApplication(ctx); err != nil {
		return cred, fmt.Errorf("selecting the application: %w", err)
	}
	for i := range p.Files {
		f := &p.Files[i]
		if f.Fallback && r.refused == nil {
			continue
		}
		if err := r.readFile(ctx, f); err != nil {
			return cred, err
		}
	}
	if c.PSAM != nil {
		if c.doubt, err = r.earn(ctx); err != nil {
			return cred, err
		}
	}
	if cred, err = credential(r.values); err != nil {
		return cred, err
	}
	cred.Level = r.level
	if c.Today != "" && cred.ValidTo != "" && cred.ValidTo < c.Today {
		return cred, ErrExpired
	}
	return cred, nil
}

// selectApplication selects what the profile names. The answer, which costs a
// contact card 40 ms, is fetched only for a PSAM: it names the card's cipher.
func (r *reading) selectApplication(ctx context.Context) (err error) {
	command := slices.Concat([]byte{0x00, 0xA4, 0x04, 0x00, byte(len(r.profile.AID))}, r.profile.AID)
	if r.card.PSAM == nil {
		err = r.card.tell(ctx, command)
	} else {
		r.fci, err = r.card.send(ctx, command)
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		status.kind = selectMeaning(status)
	}
	return err
}

// earn raises the level with the PSAM as far as the card goes along, and reads
// the file that it kept closed. What stays below is a doubt and no error.
func (r *reading) earn(ctx context.Context) (doubt, err error) {
	f, err := r.factors()
	if err != nil {
		return err, nil
	}
	keys := r.card.PSAM.cfg
	if !keys.Open.none() && (r.refused != nil || r.locks()) {
		if doubt, err := r.card.open(ctx, f); doubt != nil || err != nil {
			return doubt, err
		}
		if err := r.reopened(ctx); err != nil {
			return nil, err
		}
		if r.refused != nil {
			return ErrNotOpened, nil
		}
		r.level = attendance.LevelOpened
	}
	if keys.Prove.none() {
		return nil, nil
	}
	if doubt, err := r.card.prove(ctx, f); doubt != nil || err != nil {
		return doubt, err
	}
	r.level = attendance.LevelAuthenticated
	return nil, nil
}

// factors gathers what the card's own keys are derived by.
func (r *reading) factors() (f factors, err error) {
	algorithm, err := cipherOf(r.fci)
	if err != nil {
		return f, err
	}
	if algorithm != tripleDES {
		return f, fmt.Errorf("%w: algorithm %02X", ErrAlgorithm, algorithm)
	}
	historical, err := historicalBytes(r.card.ATR)
	if err != nil {
		return f, err
	}
	if len(historical) < len(f.card) {
		return f, fmt.Errorf("answer to reset: %d historical bytes, must be 8 or more: %w", len(historical), ErrBadFormat)
	}
	ident := fmt.Sprintf("%X", r.values["card_ident"])
	if len(ident) < 6 {
		return f, fmt.Errorf("card identification code was not read: %w", ErrBadFormat)
	}
	f.card = [8]byte(historical[len(historical)-len(f.card):])
	f.region = [8]byte(append([]byte(ident[:6]), 's', 'x'))
	return f, nil
}

// locks reports whether the card is of a version that keeps its holder's file
// closed, 3.00 or later. One that shows it nevertheless is asked all the same.
func (r *reading) locks() bool {
	version, err := parseText(r.values["spec_version"])
	return err == nil && version >= "3"
}

// reopened reads the file that was closed before.
func (r *reading) reopened(ctx context.Context) error {
	f := r.refused
	r.refused = nil
	if f == nil {
		return nil
	}
	return r.readFile(ctx, f)
}

// selectMeaning judges the answer to the selection of an application: a card
// that does not know it is some other card, whatever word it has for that.
func selectMeaning(status *StatusError) error {
	switch status.SW {
	case swNoFunc:
		return ErrCardBlocked
	case 0x6581, 0x6F00: // memory failure, no precise diagnosis: a card in trouble
		return ErrBadFormat
	}
	if status.kind != ErrBadFormat {
		return status.kind
	}
	return ErrUnsupportedCard
}

// readFile reads the items of a file that a credential has room for.
func (r *reading) readFile(ctx context.Context, f *File) error {
	open := openFile{card: r.card, profile: r.profile, file: f, ways: f.ways(r.profile)}
	for i := range f.Items {
		it := &f.Items[i]
		if !wanted(it, r.values) {
			continue
		}
		value, err := open.read(ctx, it)
		refused := errors.Is(err, ErrAccessRefused)
		switch {
		case refused && f.MayRefuse:
			r.refused = f
			return nil
		case !it.Required && (refused || absent(err)):
			// A card may go without it.
		case err != nil:
			return fmt.Errorf("reading %s of %s: %w", it.Name, f.ID, err)
		case !blank(value):
			r.values[it.Name] = value
		case it.Required && f.MayRefuse:
			// Some cards give blank records instead of a refusal.
			r.refused = f
			return nil
		case it.Required:
			return fmt.Errorf("reading %s of %s: blank: %w", it.Name, f.ID, ErrBadFormat)
		}
	}
	return nil
}

// wanted reports whether an item is worth its time on the wire: a contact card
// needs about 15 ms for each.
func wanted(it *Item, values map[string][]byte) bool {
	switch it.Name {
	case "issued": // a credential has no use for it; virtual cards have it
		return false
	case "name_ext": // there only if the name runs to the end of its record
		name := values["name"]
		return len(name) > 0 && len(unfilled(name)) == len(name)
	}
	return true
}

// way is how a card wants a record to be addressed.
type way struct {
	by    Addressed
	short bool // by short file identifier, which saves selecting the file
}

// ways lists what to try on a file, the quickest first.
func (f *File) ways(p *Profile) []way {
	var ways []way
	if f.SFI != 0 {
		for _, by := range p.ReadBy {
			ways = append(ways, way{by, true})
		}
	}
	for _, by := range p.ReadBy {
		ways = append(ways, way{by, false})
	}
	return ways
}

// openFile is a file while it is read. What the card's first record teaches
// about the way to ask serves for the rest.
type openFile struct {
	card     *Card
	profile  *Profile
	file     *File
	ways     []way // to try; one, once it has worked
	selected bool
}

// read reads the value of one record. It tries the ways in order until one
// works.
func (o *openFile) read(ctx context.Context, it *Item) ([]byte, error) {
	err := error(statusError(swNoRecord))
	for i, w := range o.ways {
		if w.by == ByNumber && it.Rec == 0 {
			continue
		}
		var value []byte
		if value, err = o.readAddressed(ctx, it, w); err == nil {
			o.ways = o.ways[i : i+1]
			return value, nil
		}
		if !absent(err) {
			break
		}
	}
	return nil, err
}

func (o *openFile) readAddressed(ctx context.Context, it *Item, w way) ([]byte, error) {
	if !w.short && !o.selected {
		fid := o.file.FID
		if err := o.card.tell(ctx, slices.Concat(o.profile.SelectFile, []byte{byte(len(fid))}, fid)); err != nil {
			return nil, err
		}
		o.selected = true
	}
	return o.card.readRecord(ctx, o.file, it, w, o.profile.Le)
}

// readRecord reads one record and gives its value. A record is tag, length and
// value; READ RECORD is ISO 7816-4 7.3.3.
func (c *Card) readRecord(ctx context.Context, f *File, it *Item, w way, le Length) ([]byte, error) {
	p1, p2 := it.Tag[0], byte(0)
	if w.by == ByNumber {
		p1, p2 = it.Rec, 4
	}
	if w.short {
		p2 |= f.SFI << 3
	}
	length := it.Len + 2
	switch le {
	case LengthValue:
		length = it.Len
	case LengthMaximum:
		length = 0
	}
	record, err := c.send(ctx, []byte{0x00, 0xB2, p1, p2, byte(length)})
	if err != nil {
		return nil, err
	}
	if len(record) != it.Len+2 || record[0] != it.Tag[0] || int(record[1]) != it.Len {
		return nil, fmt.Errorf("record of %d bytes with tag or length wrong: %w", len(record), ErrBadFormat)
	}
	return record[2:], nil
}

// absent reports whether the card said that there is no such record, or that it
// does not know this way of asking.
func absent(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	switch status.SW {
	case swNoRecord, swNoFile, swNoFunc,
		0x6981, // not a file of records
		0x6986, // no file selected
		0x6A86, // P1 P2
		0x6B00: // P1 P2
		return true
	}
	return false
}

// credential makes sense of the values. What the profile requires is there;
// what it does not is left out if it makes no sense, for an issuer's slip in a
// date must not keep anyone out of class.
func credential(values map[string][]byte) (attendance.Credential, error) {
	cred := attendance.Credential{Kind: attendance.KindSSC}
	var err error
	if value := values["card_ident"]; value != nil {
		if cred.Ident, err = ParseCardIdent(fmt.Sprintf("%X", value)); err != nil {
			return cred, err
		}
	}
	if cred.Spec, err = parseText(values["spec_version"]); err != nil {
		return cred, fmt.Errorf("specification version: %w", err)
	}
	cred.ValidTo, _ = parseDate(values["valid_to"])
	if text, err := parseText(values["card_no"]); err == nil {
		cred.CardNo, _ = ParseCardNo(text)
	}
	if value := values["person_no"]; value != nil {
		text, err := parseText(value)
		if err != nil {
			return cred, fmt.Errorf("person number: %w", err)
		}
		if cred.PersonNo, err = ParsePersonNo(text); err != nil {
			return cred, fmt.Errorf("person number: %w", err)
		}
	}
	if cred.Ident.IsZero() && cred.PersonNo.IsZero() {
		return cred, fmt.Errorf("no number that names the card or its holder: %w", ErrBadFormat)
	}
	if value := values["name"]; value != nil {
		name, err := parseName(slices.Concat(value, values["name_ext"]))
		if err != nil {
			return cred, err
		}
		cred.Name = attendance.NewPersonName(name)
	}
	return cred, nil
}
