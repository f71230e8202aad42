// Command golang-socketio is the library that Flamenco Manager uses for its web updates, set up the way Flamenco does it:
// default WebSocket transport, rooms joined on connection, BroadcastTo.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	gosocketio "github.com/graarh/golang-socketio"
	"github.com/graarh/golang-socketio/transport"
)

type event struct {
	Payload json.RawMessage `json:"payload"`
}

func main() {
	sockets := gosocketio.NewServer(transport.GetDefaultWebsocketTransport())
	must(sockets.On(gosocketio.OnConnection, func(c *gosocketio.Channel) {
		if err := c.Join("Jobs"); err != nil {
			log.Print(err)
		}
	}))

	mux := http.NewServeMux()
	mux.Handle("/socket.io/", sockets)
	mux.HandleFunc("POST /api/events", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		events, err := decode(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, e := range events {
			sockets.BroadcastTo("Jobs", "/jobs", e.Payload)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"accepted":%d}`, len(events))
	})

	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	must(err)
	url := "http://" + listener.Addr().String()
	fmt.Printf("listening browsers=%s manager=%s\n", url, url)
	must(http.Serve(listener, mux))
}

func decode(body []byte) ([]event, error) {
	if len(body) > 0 && body[0] == '[' {
		var events []event
		err := json.Unmarshal(body, &events)
		return events, err
	}
	events := make([]event, 1)
	err := json.Unmarshal(body, &events[0])
	return events, err
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
