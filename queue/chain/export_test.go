package chain

// Checks are those that a control can leave out.
var Checks = []check{checkLinks, checkHeads, checkReceipts, checkCover, checkOwner, checkGaps, checkCuts, checkKeys, checkChange}

// Without makes a verifier that leaves out one check.
func (v *Verifier) Without(c check) *Verifier {
	v.without = c
	return v
}
