package centre

import (
	"strings"

	"rollcall/queue/chain"
)

// The topics of a terminal: rollcall/v1/{tenant}/{terminal}/...
const (
	topicRecords = "up/records"
	topicState   = "up/state" // retained, with last will
	topicReceipt = "down/receipt"
	topicPackage = "down/package/" // and the class; retained
	topicDown    = "down/"
)

func topicPrefix(tenant string, id chain.TerminalID) string {
	return "rollcall/v1/" + tenant + "/" + string(id) + "/"
}

// terminalOf gives the terminal that a topic under a tenant belongs to, and
// the rest of the topic.
func terminalOf(tenant, topic string) (id chain.TerminalID, rest string, ok bool) {
	rest, ok = strings.CutPrefix(topic, "rollcall/v1/"+tenant+"/")
	if !ok {
		return "", "", false
	}
	name, rest, ok := strings.Cut(rest, "/")
	return chain.TerminalID(name), rest, ok && chain.TerminalID(name).Valid()
}
