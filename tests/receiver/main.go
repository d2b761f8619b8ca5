// Command receiver is a function made with the official SDK of CloudEvents: it answers each event with one of the type "answer", whose subject is the
// id of the event it is about.
package main

import (
	"context"
	"log"
	"os"
	"strconv"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

func main() {
	port, err := strconv.Atoi(os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	c, err := cloudevents.NewClientHTTP(cloudevents.WithPort(port))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.StartReceiver(context.Background(), answer); err != nil {
		log.Fatal(err)
	}
}

func answer(e cloudevents.Event) (*cloudevents.Event, cloudevents.Result) {
	log.Printf("event %s of type %s from %s: %s", e.ID(), e.Type(), e.Source(), e.Data())
	out := cloudevents.NewEvent()
	out.SetID("re-" + e.ID())
	out.SetSource("/receiver")
	out.SetType("answer")
	out.SetSubject(e.ID())
	if err := out.SetData(cloudevents.TextPlain, string(e.Data())); err != nil {
		return nil, err
	}
	return &out, nil
}
