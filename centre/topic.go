package centre

import (
	"strings"

	"rollcall/queue/chain"
)

// The topics of a terminal: rollcall/v1/{tenant}/{terminal}/...
const (
	topicRecords = "up/records"
	topicState   = "up/state" // retained, with last will
	topicAlert   = "up/alert"
	topicReceipt = "down/receipt"
	topicPackage = "down/package/" // and the class; retained
	topicCommand = "down/command"  // retained until it is answered
	topicDown    = "down/"
)

func topicPrefix(tenant string, id chain.TerminalID) string {
	return "rollcall/v1/" + tenant + "/" + string(id) + "/"
}

// terminalOf gives the terminal that a topic under a tenant belongs to, and
// what follows its name.
func terminalOf(tenant, topic string) (id chain.TerminalID, rest string, ok bool) {
	rest, ours := strings.CutPrefix(topic, "rollcall/v1/"+tenant+"/")
	name, rest, deeper := strings.Cut(rest, "/")
	id = chain.TerminalID(name)
	return id, rest, ours && deeper && id.Valid()
}
