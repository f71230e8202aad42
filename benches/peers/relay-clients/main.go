// Connects browsers to a Socket.IO v2 server, has a real Manager tell of events, and measures how long each takes to reach the
// last browser. See benches/in-front.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"flamenco-webupdates.example/benches/websocket"
)

var (
	server  = flag.String("server", "", "host:port that browsers connect to")
	manager = flag.String("manager", "", "URL of the Manager that tells of events")
	job     = flag.String("job", "", "the job whose priority is changed; without one somebody chats, for Managers that know no such change")
	clients = flag.Int("clients", 1000, "browsers")
	events  = flag.Int("events", 200, "events")
	rate    = flag.Float64("rate", 10, "events a second")
)

type receipt struct {
	number int
	at     time.Time
}

func main() {
	flag.Parse()
	receipts := make(chan receipt, *clients)
	for range *clients {
		go listen(connect(*server), receipts)
	}
	cause := change
	if *job == "" {
		connection := connect(strings.TrimPrefix(*manager, "http://"))
		go func() {
			for {
				read(connection)
			}
		}()
		cause = func(number int) {
			_ = connection.Send(fmt.Sprintf(`42["/chat",{"name":"n","text":"%s"}]`, text(number)))
		}
	}
	time.Sleep(2 * time.Second)
	fmt.Println("connected")
	// Whoever measures notes what processes have used so far.
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')

	var latencies []time.Duration
	timer := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	lost := 0
	for number := range *events {
		<-timer.C
		began := time.Now()
		cause(number)
		last, missing := began, *clients
		deadline := time.After(5 * time.Second)
		for missing > 0 {
			select {
			case receipt := <-receipts:
				if receipt.number == number {
					missing--
					if receipt.at.After(last) {
						last = receipt.at
					}
				}
			case <-deadline:
				lost += missing
				missing = 0
			}
		}
		latencies = append(latencies, last.Sub(began))
	}
	slices.Sort(latencies)
	at := func(share float64) float64 {
		return float64(latencies[min(len(latencies)-1, int(share*float64(len(latencies))))].Microseconds()) / 1000
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1), "lost": lost})
}

// change has the Manager tell of another priority.
func change(number int) {
	body := fmt.Sprintf(`{"priority":%d}`, priority(number))
	answer, err := http.Post(*manager+"/api/v3/jobs/"+*job+"/setpriority", "application/json", strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		log.Fatal(answer.Status)
	}
}

// priority is one that the Manager takes, and not that of the event before.
func priority(number int) int { return 1 + number%100 }

// text is what is said for an event.
func text(number int) string { return fmt.Sprintf("event %d.", number) }

func connect(address string) *websocket.Conn {
	connection, err := websocket.Dial(address, "/socket.io/?EIO=3&transport=websocket", "", time.Time{})
	if err != nil {
		log.Fatal(err)
	}
	// As a page does, which is heard again only after it asked.
	_ = connection.Send(`42["/subscription",{"op":"subscribe","type":"allJobs"}]`)
	go func() {
		for {
			time.Sleep(15 * time.Second)
			_ = connection.Send("2")
		}
	}()
	return connection
}

func read(connection *websocket.Conn) []byte {
	message, err := connection.Read()
	if err != nil {
		log.Fatal("a browser was sent away: ", err)
	}
	return message
}

// listen tells of each change that arrives.
func listen(connection *websocket.Conn, receipts chan<- receipt) {
	next := 0
	for {
		payload := read(connection)
		event, mark := `42["/jobs"`, fmt.Sprintf(`"priority":%d,`, priority(next))
		if *job == "" {
			event, mark = `42["/message"`, text(next)
		}
		// Each event is caused once the one before has arrived everywhere.
		if bytes.HasPrefix(payload, []byte(event)) && bytes.Contains(payload, []byte(mark)) {
			receipts <- receipt{next, time.Now()}
			next++
		}
	}
}
