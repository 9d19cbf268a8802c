package attendance

// Enrolment is what the ledger says of a trainee's consented face template:
// the sequence number of the enrol record, the embedder's SHA-256 (lower-case
// hex) and the salted hash of the sealed template, SHA-256(salt || sealed),
// both base64url without padding. A template that does not hash to it is not
// used.
type Enrolment struct {
	Seq   uint64
	Model string
	Salt  string
	Hash  string
}
