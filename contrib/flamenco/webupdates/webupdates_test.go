package webupdates

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"
)

const (
	patience = 30 * time.Second
	job      = "4b2c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c21"
	task     = "7a1c1f0e-7c3f-4f0f-9a53-2f6d1b7f6c99"
)

// What the Manager's own bus looks like from here.
type topic string

type bus struct {
	mutex      sync.Mutex
	forwarders []interface{ Broadcast(topic, interface{}) }
}

func (b *bus) add(forwarder interface{ Broadcast(topic, interface{}) }) {
	b.forwarders = append(b.forwarders, forwarder)
}

func (b *bus) broadcast(topic topic, payload interface{}) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for _, forwarder := range b.forwarders {
		forwarder.Broadcast(topic, payload)
	}
}

type jobUpdate struct {
	ID           string    `json:"id"`
	Name         *string   `json:"name,omitempty"`
	Updated      time.Time `json:"updated"`
	Status       string    `json:"status"`
	Type         string    `json:"type"`
	Priority     int       `json:"priority"`
	RefreshTasks bool      `json:"refresh_tasks"`
}

func update(number int) jobUpdate {
	return jobUpdate{job, nil, time.Unix(int64(number), 0), "active", "t", number, false}
}

// server is the real one.
type server struct {
	process           *exec.Cmd
	browsers, manager string
}

func start(t *testing.T) *server {
	t.Helper()
	return startAt(t, "127.0.0.1:0")
}

// startAt starts one with this address for the Manager.
func startAt(t *testing.T, manager string) *server {
	t.Helper()
	program := os.Getenv("WEBUPDATES_BIN")
	if program == "" {
		t.Skip("WEBUPDATES_BIN is not the path of a flamenco-webupdates")
	}
	s := &server{process: exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--manager-listen", manager)}
	output, err := s.process.StdoutPipe()
	if err == nil {
		err = s.process.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	line, _ := bufio.NewReader(output).ReadString('\n')
	if _, err := fmt.Sscanf(line, "listening browsers=%s manager=%s", &s.browsers, &s.manager); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return s
}

func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func (s *server) stats(t *testing.T) (stats struct{ Events, Refused map[string]int }) {
	t.Helper()
	response, err := http.Get(s.manager + "/api/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	return stats
}

// browser is one that polls.
type browser struct {
	t      *testing.T
	url    string
	events []string
}

func (s *server) browser(t *testing.T, rooms ...string) *browser {
	b := &browser{t: t, url: s.browsers + "/socket.io/?EIO=3&transport=polling"}
	open := b.poll()
	b.url += "&sid=" + regexp.MustCompile(`"sid":"([^"]+)"`).FindStringSubmatch(open[0])[1]
	for number, room := range rooms {
		packet := fmt.Sprintf(`42%d["/subscription",%s]`, number, room)
		response, err := http.Post(b.url, "text/plain", strings.NewReader(fmt.Sprintf("%d:%s", len(packet), packet)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		b.until(func() bool { return b.has(fmt.Sprintf(`43%d["ok"]`, number)) })
	}
	b.events = nil
	return b
}

func (b *browser) has(packet string) bool {
	for _, event := range b.events {
		if event == packet {
			return true
		}
	}
	return false
}

// poll returns the packets of one request: `<length in UTF-16 units>:<packet>`, repeated.
func (b *browser) poll() (packets []string) {
	b.t.Helper()
	response, err := http.Get(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	units := utf16.Encode([]rune(string(body)))
	for len(units) > 0 {
		digits, _, _ := strings.Cut(string(utf16.Decode(units[:min(len(units), 10)])), ":")
		length, err := strconv.Atoi(digits)
		if err != nil {
			b.t.Fatalf("%s: %q", response.Status, body)
		}
		from := len(digits) + 1
		packets = append(packets, string(utf16.Decode(units[from:from+length])))
		units = units[from+length:]
	}
	return packets
}

func (b *browser) until(done func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain, having seen %q", b.events)
		}
		b.events = append(b.events, b.poll()...)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestEveryKindArrivesOnceAndInOrder(t *testing.T) {
	server := start(t)
	browser := server.browser(t, `{"op":"subscribe","type":"allWorkers"}`, `{"op":"subscribe","type":"allWorkerTags"}`,
		`{"op":"subscribe","type":"job","uuid":"`+job+`"}`, `{"op":"subscribe","type":"tasklog","uuid":"`+task+`"}`)
	var bus bus
	forwarder := New[topic](server.manager, "")
	bus.add(forwarder)

	type object = map[string]interface{}
	image := object{"job_id": job, "thumbnail": object{"base": "/x", "suffixes": []string{"a.jpg"}}}
	now := time.Now()
	bus.broadcast("/lifecycle", object{"type": "manager-startup"})
	bus.broadcast("/status", object{"status": "active"})
	bus.broadcast("/jobs", update(1))
	bus.broadcast("/workers", object{"id": task, "name": "w", "status": "awake", "updated": now, "version": "3.9"})
	bus.broadcast("/workertags", object{"tag": object{"id": task, "name": "GPU"}})
	bus.broadcast(topic("/jobs/"+job), object{"id": task, "job_id": job, "name": "t", "status": "active", "activity": "", "updated": now})
	bus.broadcast(topic("/tasklog/"+task), object{"task_id": task, "log": "line <1> & 🎬\n"})
	bus.broadcast("/last-rendered", image)
	bus.broadcast(topic("/jobs/"+job+"/last-rendered"), image)
	bus.broadcast("/unknown", object{})
	bus.broadcast("/jobs", update(2))

	expected := []string{"/lifecycle", "/status", "/jobs", "/workers", "/workertags", "/task", "/tasklog", "/last-rendered", "/jobs"}
	browser.until(func() bool { return len(browser.events) >= len(expected) })
	for place, event := range browser.events {
		if !strings.HasPrefix(event, `42["`+expected[place]+`",`) {
			t.Errorf("%d: %s where %s is due", place, event, expected[place])
		}
	}
	var log []json.RawMessage
	var chunk struct{ Log string }
	if json.Unmarshal([]byte(browser.events[6][2:]), &log) != nil || json.Unmarshal(log[1], &chunk) != nil || chunk.Log != "line <1> & 🎬\n" {
		t.Error(browser.events[6])
	}
	forwarder.Close(patience)
	if forwarder.Dropped() != 0 {
		t.Error(forwarder.Dropped())
	}
}

func TestAnEventThatIsRefusedTakesNoOtherWithIt(t *testing.T) {
	server := start(t)
	forwarder := New[topic](server.manager, "")
	forwarder.Broadcast("/jobs", update(1))
	forwarder.Broadcast("/jobs", map[string]int{"id": 1})
	forwarder.Broadcast("/jobs", func() {}) // no JSON
	forwarder.Broadcast("/jobs", update(2))
	forwarder.Close(patience)
	stats := server.stats(t)
	if stats.Events["job-update"] != 2 || stats.Refused["invalid-event"] != 1 || forwarder.Dropped() != 1 {
		t.Error(stats, forwarder.Dropped())
	}
}

func TestAServerThatIsKilledGetsTheRestWhenItIsBack(t *testing.T) {
	first := start(t)
	forwarder := New[topic](first.manager, "")
	defer forwarder.Close(0)
	forwarder.Broadcast("/jobs", update(1))
	until(t, "the first event", func() bool { return first.stats(t).Events["job-update"] == 1 })
	first.kill()
	for number := range 3000 {
		forwarder.Broadcast("/jobs", update(number))
	}
	second := startAt(t, strings.TrimPrefix(first.manager, "http://"))
	until(t, "all events", func() bool { return second.stats(t).Events["job-update"] >= 3000 })
}

// An unreliable server, of our own.
func TestWhatWasNotAcknowledgedIsSentAgainUnderItsId(t *testing.T) {
	var mutex sync.Mutex
	var ids []string
	requests := 0
	unreliable := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		requests++
		attempt := requests
		mutex.Unlock()
		lines := bufio.NewScanner(r.Body)
		count := 0
		for lines.Scan() {
			var event struct{ ID string }
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				t.Errorf("%s: %v", lines.Text(), err)
			}
			mutex.Lock()
			ids = append(ids, event.ID)
			mutex.Unlock()
			if count++; attempt == 1 && count == 50 {
				panic(http.ErrAbortHandler)
			}
			if attempt == 2 && count == 70 {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, `{"error":"later","accepted":60}`)
				return
			}
		}
		fmt.Fprintf(w, `{"accepted":%d}`, count)
	}))
	defer unreliable.Close()
	forwarder := New[topic](unreliable.URL, "")
	for number := range 200 {
		forwarder.Broadcast("/jobs", update(number))
	}
	forwarder.Close(patience)
	mutex.Lock()
	defer mutex.Unlock()
	var expected []string
	for _, part := range [][2]int{{1, 50}, {1, 70}, {61, 200}} {
		for number := part[0]; number <= part[1]; number++ {
			expected = append(expected, fmt.Sprintf("%s-%d", instance, number))
		}
	}
	if fmt.Sprint(ids) != fmt.Sprint(expected) {
		t.Errorf("%d ids, %d expected: %v", len(ids), len(expected), ids)
	}
}

func TestAServerThatDoesNotReadKeepsNobodyWaiting(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	forwarder := New[topic]("http://"+deaf.Addr().String(), "")
	defer forwarder.Close(0)
	log := map[string]string{"task_id": task, "log": strings.Repeat("x", 2000)}
	for range 3 * maxQueuedEvents {
		began := time.Now()
		forwarder.Broadcast(topic("/tasklog/"+task), log)
		if took := time.Since(began); took > 2*time.Second {
			t.Error("one takes", took)
		}
	}
	forwarder.mutex.Lock()
	defer forwarder.mutex.Unlock()
	if forwarder.bytes > maxQueuedBytes || len(forwarder.queue)+int(forwarder.dropped) != 3*maxQueuedEvents {
		t.Error(forwarder.bytes, len(forwarder.queue), forwarder.dropped)
	}
}

func TestARequestIsBoundedAndTheNextOneGoesOn(t *testing.T) {
	var mutex sync.Mutex
	var requests []int
	patient := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := 0
		for scanner := bufio.NewScanner(r.Body); scanner.Scan(); {
			lines++
		}
		mutex.Lock()
		requests = append(requests, lines)
		mutex.Unlock()
		fmt.Fprintf(w, `{"accepted":%d}`, lines)
	}))
	defer patient.Close()
	forwarder := New[topic](patient.URL, "")
	for number := range 3*requestEvents + 1 {
		forwarder.Broadcast("/jobs", update(number))
	}
	// An event that comes later is in a request that ends by its time.
	until(t, "the last acknowledgement", func() bool {
		forwarder.mutex.Lock()
		defer forwarder.mutex.Unlock()
		return len(forwarder.queue) == 0 && forwarder.bytes == 0
	})
	forwarder.Close(patience)
	mutex.Lock()
	defer mutex.Unlock()
	total := 0
	for _, lines := range requests {
		if total += lines; lines > requestEvents {
			t.Errorf("a request of %d events", lines)
		}
	}
	if total != 3*requestEvents+1 {
		t.Error(requests)
	}
}

func TestALongStreamIsTakenOnce(t *testing.T) {
	server := start(t)
	forwarder := New[topic](server.manager, "")
	for number := range 5*requestEvents + 1 {
		forwarder.Broadcast("/jobs", update(number))
	}
	forwarder.Close(patience)
	if stats := server.stats(t); stats.Events["job-update"] != 5*requestEvents+1 || stats.Refused["repeated"] != 0 {
		t.Error(stats)
	}
}
