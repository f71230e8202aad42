// Loads one of several nodes with clients and posts events to another node, for this server and for its peers: the same
// clients, payloads and counts for each. See benches/cluster.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flamenco-webupdates.example/benches/websocket"
)

var (
	system    = flag.String("system", "server", "server, resumable or centrifugo")
	node      = flag.String("node", "", "host:port that clients connect to")
	api       = flag.String("api", "", "URL that events are posted to")
	clients   = flag.Int("clients", 1000, "clients")
	events    = flag.Int("events", 200, "events")
	rate      = flag.Float64("rate", 0, "events a second; 0: the next as soon as the last is answered")
	batch     = flag.Int("batch", 1, "events in one POST")
	recovers  = flag.Bool("recover", false, "clients miss the events and recover them, all at once")
	processes = flag.String("processes", "", "process ids whose CPU time is reported, separated by commas")
)

const (
	atOnce    = 100
	patience  = 60 * time.Second
	heartbeat = 15 * time.Second
	settle    = 2 * time.Second
)

// place is where a client is in the stream of events.
type place struct{ token, epoch, offset string }

// client is a client with what it has got so far.
type client struct {
	connection *websocket.Conn
	dialect    dialect
	place      place
	next       int
	frame      []byte
}

var total, outOfOrder, lastAt atomic.Int64

func main() {
	flag.Parse()
	dialect, known := dialects[*system]
	if !known {
		log.Fatal("no such system: ", *system)
	}
	all := make([]*client, *clients)
	for number := range all {
		all[number] = &client{dialect: dialect}
	}
	report := map[string]any{}
	if *recovers {
		recovery(dialect, all, report)
	} else {
		fanout(dialect, all, report)
	}
	report["deliveries"] = total.Load()
	report["lost"] = int64(*clients)*int64(*events) - total.Load()
	report["out_of_order"] = outOfOrder.Load()
	_ = json.NewEncoder(os.Stdout).Encode(report)
}

// fanout posts events to clients that are connected.
func fanout(dialect dialect, all []*client, report map[string]any) {
	connectAll(all)
	for _, each := range all {
		go each.listen(*events)
	}
	time.Sleep(settle)
	measured(report, func() {
		publish(dialect, 0, *events, *batch, *rate)
		await(int64(*clients) * int64(*events))
	})
}

// recovery posts events while the clients are away, and lets them return.
func recovery(dialect dialect, all []*client, report map[string]any) {
	connectAll(all)
	publish(dialect, 0, 1, 1, 0)
	each(all, func(client *client) {
		client.listen(1)
		client.connection.Close()
	})
	time.Sleep(settle)
	publish(dialect, 1, *events, 1, 0)
	time.Sleep(settle)
	total.Store(0)
	measured(report, func() {
		each(all, func(client *client) {
			client.connect()
			client.listen(1 + *events)
		})
	})
}

// measured reports how long the work takes, and the CPU time of the processes until they have calmed down.
func measured(report map[string]any, work func()) {
	before, began := cpu(), time.Now()
	work()
	report["seconds"] = time.Unix(0, lastAt.Load()).Sub(began).Seconds()
	time.Sleep(time.Second / 2)
	used := cpu()
	for number := range used {
		used[number] -= before[number]
	}
	report["cpu_s"] = used
}

func connectAll(all []*client) { each(all, (*client).connect) }

// each does something for all clients, for some of them at the same time.
func each(all []*client, work func(*client)) {
	var waiting sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for _, client := range all {
		waiting.Add(1)
		free <- struct{}{}
		go func() {
			defer waiting.Done()
			work(client)
			<-free
		}()
	}
	waiting.Wait()
}

// await returns when all is delivered, or nothing comes any more.
func await(all int64) {
	for last, since := int64(-1), time.Now(); total.Load() < all && time.Since(since) < patience/4; time.Sleep(time.Millisecond) {
		if now := total.Load(); now != last {
			last, since = now, time.Now()
		}
	}
}

// payload is an update of a job as Flamenco sends it, 330 bytes, with the number of the event in the job's name.
func payload(number int) string {
	text := fmt.Sprintf(`{"id":"00000000-0000-4000-8000-%012x","name":"event %06d","updated":"2026-11-27T08:00:00.123456Z",`+
		`"status":"active","previous_status":"queued","type":"simple-blender-render","priority":50,"refresh_tasks":false,"delete_requested_at":null,"note":"`,
		number%100, number)
	return text + strings.Repeat("x", 330-2-len(text)) + `"}`
}

// publish posts events, each POST when the last one is answered.
func publish(dialect dialect, first, count, batch int, rate float64) {
	began := time.Now()
	for number := first; number < first+count; number += batch {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(number-first) / rate * float64(time.Second)))))
		}
		var payloads []string
		for each := number; each < min(number+batch, first+count); each++ {
			payloads = append(payloads, payload(each))
		}
		path, body := dialect.post(payloads)
		answer, err := http.Post(*api+path, "application/json", strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode >= 300 || bytes.Contains(text, []byte(`"error"`)) {
			log.Fatal("events are refused: ", answer.Status, string(text))
		}
	}
}

// connect returns once the client is subscribed, from its place if it has one.
func (c *client) connect() {
	connection, err := websocket.Dial(*node, c.dialect.path, c.dialect.subprotocol, time.Now().Add(patience))
	if err != nil {
		log.Fatal(err)
	}
	c.connection = connection
	for _, message := range c.dialect.open(c.place) {
		_ = connection.Send(message)
	}
	for subscribed := false; !subscribed; {
		frame := c.read()
		subscribed = c.dialect.subscribed(frame)
		c.dialect.note(frame, &c.place)
		// What was missed may come in the same message, or before it.
		c.count(frame)
	}
	if c.dialect.ping != "" {
		go func() {
			for {
				time.Sleep(heartbeat)
				if c.connection != connection || connection.Send(c.dialect.ping) != nil {
					return
				}
			}
		}()
	}
}

// listen counts events until the client has so many.
func (c *client) listen(until int) {
	for c.next < until {
		frame := c.read()
		if c.count(frame) == 0 && c.dialect.pong != "" && string(frame) == c.dialect.pong {
			_ = c.connection.Send(c.dialect.pong)
		}
	}
	c.dialect.note(c.frame, &c.place)
}

// count returns how many events are in a message.
func (c *client) count(frame []byte) int {
	found := 0
	for rest := frame; ; found++ {
		at := bytes.Index(rest, []byte(`event `))
		if at < 0 || len(rest) < at+12 {
			break
		}
		number, err := strconv.Atoi(string(rest[at+6 : at+12]))
		if err != nil {
			log.Fatal("not an event: ", string(rest[at:at+12]))
		}
		if number != c.next {
			outOfOrder.Add(1)
		}
		c.next = number + 1
		rest = rest[at+12:]
	}
	if found > 0 {
		total.Add(int64(found))
		lastAt.Store(time.Now().UnixNano())
	}
	return found
}

// read returns a message, which is valid until the next one is read.
func (c *client) read() []byte {
	frame, err := c.connection.Read()
	if err != nil {
		log.Fatal("a client was sent away: ", err)
	}
	c.frame = frame
	return frame
}

// cpu is the seconds of CPU time that each of the processes has used.
func cpu() []float64 {
	var used []float64
	for _, id := range strings.Split(*processes, ",") {
		text, err := os.ReadFile("/proc/" + id + "/stat")
		if err != nil {
			log.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		user, _ := strconv.ParseFloat(fields[11], 64)
		kernel, _ := strconv.ParseFloat(fields[12], 64)
		// The kernel's unit here is 10 ms everywhere (USER_HZ).
		used = append(used, (user+kernel)/100)
	}
	return used
}
