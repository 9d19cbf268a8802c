// Package mqtt is the uplink that empties a ledger into the centre, and the
// downlink for class packages.
//
// It promises that records leave in order and are let go only against the
// centre's signed receipt, never on a broker's acknowledgement; that nothing
// it hears is believed before its signature was checked; and that a dead
// network, broker or centre costs nothing but time: it tries again for ever,
// and says what is wrong. It refuses TLS before 1.3 and servers whose
// certificate is not the centre's.
//
// It speaks MQTT 3.1.1 (OASIS Standard, 29 October 2014) with QoS 1 under
// rollcall/v1/{tenant}/{terminal}/. One goroutine, [Uplink.Run], does all of it.
package mqtt
