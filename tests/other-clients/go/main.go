// A client of golang-socketio for Go, driven by lines of JSON: commands on stdin, what happens on stdout.
//
//	bridge URL
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	gosocketio "github.com/graarh/golang-socketio"
	"github.com/graarh/golang-socketio/transport"
)

var printing sync.Mutex

func say(line map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func fail(err error) {
	say(map[string]any{"fact": "error", "message": err.Error()})
	os.Exit(1)
}

func main() {
	emit := connect(os.Args[1])
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var command struct {
			Emit  []any
			Close bool
		}
		if err := json.Unmarshal(input.Bytes(), &command); err != nil {
			fail(err)
		}
		if command.Close {
			return
		}
		emit(command.Emit[0].(string), command.Emit[1])
	}
}

func connect(address string) func(string, any) {
	at, err := url.Parse(address)
	if err != nil {
		fail(err)
	}
	port, _ := strconv.Atoi(at.Port())
	client, err := gosocketio.Dial(gosocketio.GetUrl(at.Hostname(), port, false), transport.GetDefaultWebsocketTransport())
	if err != nil {
		fail(err)
	}
	say(map[string]any{"fact": "connect"})
	_ = client.On(gosocketio.OnDisconnection, func(*gosocketio.Channel) { say(map[string]any{"fact": "disconnect"}) })
	for _, event := range []string{"/jobs", "/message"} {
		_ = client.On(event, func(_ *gosocketio.Channel, payload map[string]any) {
			say(map[string]any{"event": []any{event, payload}})
		})
	}
	return func(event string, payload any) {
		go func() {
			answer, err := client.Ack(event, payload, 10*time.Second)
			if err != nil {
				say(map[string]any{"fact": "error", "message": err.Error()})
				return
			}
			var text any
			if json.Unmarshal([]byte(answer), &text) != nil {
				text = answer
			}
			say(map[string]any{"ack": text})
		}()
	}
}
