package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// fakeCommand is what a worker that only waits reads of a command.
type fakeCommand struct {
	Instance functions.InstanceID
	Action   bus.Action
	// Function is the name of the function to start.
	Function string
	Reason   string
	Asked    time.Time
}

// readCommand finds what it needs in a command as the scheduler writes it: the fields in their order, without spaces. A worker reads all of it, on
// processors of its own; here that would be a part of what is measured.
func readCommand(data []byte) (c fakeCommand, err error) {
	// The revision lies between the action and the reason.
	c.Instance = functions.InstanceID(firstText(data, `"instance":"`))
	c.Action = bus.Action(firstText(data, `"action":"`))
	if c.Action == bus.ActionStart {
		c.Function = firstText(data, `"function":"`)
	}
	c.Reason = lastText(data, `"reason":"`)
	if c.Action == "" || c.Action == bus.ActionStart && (c.Instance == "" || c.Function == "") {
		return c, fmt.Errorf("%s is no command that is understood", data)
	}
	c.Asked, err = time.Parse(time.RFC3339Nano, lastText(data, `"asked":"`))
	return c, err
}

// firstText is the text behind the first place of a key, up to the next quote; empty where there is none.
func firstText(data []byte, key string) string {
	return textAt(data, bytes.Index(data, []byte(key)), key)
}

func lastText(data []byte, key string) string {
	return textAt(data, bytes.LastIndex(data, []byte(key)), key)
}

func textAt(data []byte, at int, key string) string {
	if at < 0 {
		return ""
	}
	text := data[at+len(key):]
	end := bytes.IndexByte(text, '"')
	if end < 0 {
		return ""
	}
	return string(text[:end])
}
