package kafka

import (
	"fmt"
	"mime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tatami-faas/tatami/functions"
)

// Type is the type of the events.
const Type = "kafka.record"

// EventOf makes an event of a record: its value is the data, topic, partition and offset name it, and a key that is text is the attribute partitionkey.
func EventOf(r *kgo.Record) functions.Event {
	ev := functions.Event{
		ID: fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), Source: "/kafka/" + r.Topic, Type: Type, Time: r.Timestamp.UTC(), Data: r.Value,
		Extensions: map[string]string{"kafkapartition": strconv.Itoa(int(r.Partition)), "kafkaoffset": strconv.FormatInt(r.Offset, 10)},
	}
	if k := string(r.Key); k != "" && len(k) <= functions.MaxAttribute && utf8.ValidString(k) && !strings.ContainsFunc(k, func(c rune) bool { return !unicode.IsPrint(c) }) {
		ev.Extensions["partitionkey"] = k
	}
	for _, h := range r.Headers {
		if strings.EqualFold(h.Key, "content-type") {
			if _, _, err := mime.ParseMediaType(string(h.Value)); err == nil && strings.Contains(string(h.Value), "/") {
				ev.DataContentType = string(h.Value)
			}
		}
	}
	return ev
}
