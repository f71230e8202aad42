// Connects browsers to a Socket.IO v2 server, has a real Manager tell of events, and measures how long each takes to reach the
// last browser. See benches/in-front.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
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
		_, reader := connect(*server)
		go listen(reader, receipts)
	}
	cause := change
	if *job == "" {
		connection, reader := connect(strings.TrimPrefix(*manager, "http://"))
		go io.Copy(io.Discard, reader)
		cause = func(number int) {
			send(connection, fmt.Sprintf(`42["/chat",{"name":"n","text":"%s"}]`, text(number)))
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

func connect(address string) (net.Conn, *bufio.Reader) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(connection, "GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", address)
	reader := bufio.NewReaderSize(connection, 4096)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		log.Fatal(answer, err)
	}
	// As a page does, which is heard again only after it asked.
	send(connection, `42["/subscription",{"op":"subscribe","type":"allJobs"}]`)
	go func() {
		for {
			time.Sleep(15 * time.Second)
			send(connection, "2")
		}
	}()
	return connection, reader
}

// send writes a text frame, masked with zeros.
func send(connection net.Conn, text string) {
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	if len(text) > 125 {
		log.Fatal("too long")
	}
	_, _ = connection.Write(frame)
}

// listen tells of each change that arrives.
func listen(reader *bufio.Reader, receipts chan<- receipt) {
	next := 0
	var payload []byte
	for {
		var head [2]byte
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			log.Fatal("a browser was sent away: ", err)
		}
		length := uint64(head[1])
		if length == 126 {
			var extended [2]byte
			_, _ = io.ReadFull(reader, extended[:])
			length = uint64(binary.BigEndian.Uint16(extended[:]))
		} else if length == 127 {
			var extended [8]byte
			_, _ = io.ReadFull(reader, extended[:])
			length = binary.BigEndian.Uint64(extended[:])
		}
		payload = slices.Grow(payload[:0], int(length))[:length]
		if _, err := io.ReadFull(reader, payload); err != nil {
			log.Fatal(err)
		}
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
