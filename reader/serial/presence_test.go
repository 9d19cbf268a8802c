package serial

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A story is what is sighted at which millisecond ("-" nothing, "?" something
// that cannot be read) and what a tap must tell: "+" fresh, "!" the thing before
// is gone.
func TestPresence(t *testing.T) {
	for _, c := range []struct{ name, story, want string }{
		{"one thing", "0a", "+"},
		{"lying there", "0a 300a 600a 60000a 60300a", "+ . . . ."},
		{"gone after a while", "0a 300- 400- 500-", "+ . ! ."},
		{"bounces", "0a 100- 200a 300- 350a", "+ . . . ."},
		{"back too soon", "0a 500- 2900a 3400-", "+ ! . ."},
		{"too soon, again and again", "0a 500- 2900a 3400- 5800a 6300- 8700a", "+ ! . . . . ."},
		{"back later", "0a 500- 3100a", "+ ! +"},
		{"another in its place", "0a 100b 200-", "+ !+ ."},
		{"two by turns", "0a 100b 200a 300b", "+ !+ ! ."},
		{"unreadable, lying there", "0? 1000? 2000? 9000?", "+ . . ."},
		{"unreadable, again and again", "0? 500- 2000? 2500- 4000?", "+ ! . . +"},
		{"unreadable, then read", "0? 300a", "+ !+"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := presence{debounce: 400 * time.Millisecond, coolDown: 3 * time.Second}
			var got []string
			for step := range strings.FieldsSeq(c.story) {
				var ms int
				var key string
				_, err := fmt.Sscanf(step, "%d%s", &ms, &key)
				assert.NoError(t, err)
				at := time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond)
				out := ""
				switch key {
				case "-":
					if p.unseen(at) {
						out = "!"
					}
				default:
					gone, fresh := p.sight(strings.ReplaceAll(key, "?", unreadable), at)
					if gone {
						out = "!"
					}
					if fresh {
						out += "+"
					}
				}
				if out == "" {
					out = "."
				}
				got = append(got, out)
			}
			assert.Equal(t, c.want, strings.Join(got, " "))
		})
	}
}

func TestPresenceForgets(t *testing.T) {
	p := presence{debounce: time.Second, coolDown: time.Second}
	at := time.Unix(100, 0)
	for n := range 1000 {
		p.sight(fmt.Sprint(n), at)
	}
	assert.LessOrEqual(t, len(p.last), maxRecent)
	assert.True(t, p.recent(at))
	p.unseen(at.Add(time.Minute))
	assert.False(t, p.recent(at.Add(time.Minute)), "what was shown is not kept")
	assert.Empty(t, p.last)
}
