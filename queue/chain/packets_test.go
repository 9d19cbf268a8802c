package chain_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

func publish(t testing.TB, payload int) []byte {
	t.Helper()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = 1, 9, "a/b", bytes.Repeat([]byte{'x'}, payload)
	var out bytes.Buffer
	require.NoError(t, p.Write(&out))
	return out.Bytes()
}

func TestPacketsAreCutToTheLimit(t *testing.T) {
	ping := []byte{0xc0, 0}
	for _, size := range []int{0, 1, 100, 992, 993, 994, 1 << 14, 1 << 21, 3 << 20} {
		stream := append(append(bytes.Clone(ping), publish(t, size)...), ping...)
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			limited := chain.NewPackets(r, 1000)
			var got []packets.ControlPacket
			for {
				p, err := packets.ReadPacket(limited)
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				got = append(got, p)
			}
			require.Lenf(t, got, 3, "payload of %d %s", size, name)
			pub := got[1].(*packets.PublishPacket)
			assert.Equal(t, "a/b", pub.TopicName)
			assert.Equal(t, uint16(9), pub.MessageID)
			assert.Len(t, pub.Payload, min(size, 1000-2-3-2), "the rest of the packet is topic and identifier")
			assert.IsType(t, &packets.PingreqPacket{}, got[2], "what follows is untouched")
		}
	}
}

func TestPacketsRefuse(t *testing.T) {
	for name, stream := range map[string][]byte{
		"a long SUBACK":           {0x90, 0xff, 0x7f},
		"a length without an end": {0x30, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := packets.ReadPacket(chain.NewPackets(bytes.NewReader(stream), 1000))
			assert.ErrorIs(t, err, chain.ErrPacket)
		})
	}
	huge := []byte{0x30, 0xff, 0xff, 0xff, 0x7f}
	assert.Less(t, room(huge, 1000), uint64(1<<20))
	assert.Greater(t, room(huge, 1<<28), uint64(200<<20), "the control: the parser makes room for what five bytes claim")
}

// room is the memory that reading a packet takes.
func room(stream []byte, limit int) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = packets.ReadPacket(chain.NewPackets(bytes.NewReader(stream), limit))
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzPackets(f *testing.F) {
	f.Add(publish(f, 10), 4)
	f.Add(publish(f, 2000), 1000)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 100)
	f.Fuzz(func(t *testing.T, stream []byte, limit int) {
		if limit < 0 || limit > 1<<20 {
			return
		}
		out, _ := io.ReadAll(chain.NewPackets(bytes.NewReader(stream), limit))
		again, _ := io.ReadAll(chain.NewPackets(bytes.NewReader(out), limit))
		assert.Equal(t, out, again, "what passed once passes unchanged")
		assert.LessOrEqual(t, len(out), len(stream))
	})
}
