// Package evaluate measures how well faces are recognised, and says no more
// than the data can show: the error rates of ISO/IEC 19795-1 (false match,
// false non-match, failure to acquire), identification at rank 1, and those of
// ISO/IEC 30107-3 for presentation attacks.
//
// It is arithmetic on scores and vectors: it reads no picture and starts no
// worker; cmd/rollcall does both. What is random in it (drawn pairs, resampled
// people) comes from a fixed seed, so the same data give the same figures.
//
// Scores are cosines, -1 to 1, higher for more alike; a comparison is a match
// where its score reaches the threshold. A picture without a usable face has
// the score -1 with every other, as in the daemon: it matches nobody, so it
// costs every mated comparison it stands in and none of the others. Rates are
// fractions, 0 to 1. A rate that n comparisons cannot support is never given:
// [Rate] gives the bound in its place.
//
// Values may be read from several goroutines at once; who adds to a [Tally]
// does it alone.
package evaluate
