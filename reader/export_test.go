package reader

// SetRandom replaces the random bytes by which a card must prove itself: a
// dialogue has them written down.
func (c *Card) SetRandom(random func([]byte)) { c.random = random }

// CipherOf and HistoricalBytes are parsers of foreign bytes.
var (
	CipherOf        = cipherOf
	HistoricalBytes = historicalBytes
)
