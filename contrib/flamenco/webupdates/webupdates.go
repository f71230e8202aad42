// Package webupdates sends the events of Flamenco Manager's event bus to a flamenco-webupdates server.
//
// Copy this file into the Manager's source and add the forwarder to its event broker, in one line:
//
//	eventBroker.AddForwarder(webupdates.New[eventbus.EventTopic]("http://127.0.0.1:8082", ""))
//
// Broadcast never blocks: events go to a bounded queue, and from there in order to POST /api/events, one JSON object per
// line. The server publishes each line as it arrives and acknowledges at the end of the request, so a request ends a second
// after its first event, or after a thousand events. Unacknowledged events are re-sent with their ids, so that the server
// publishes nothing twice. If the queue is full, because the server is away for long, the oldest events are dropped.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
package webupdates

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxQueuedEvents = 20_000
	maxQueuedBytes  = 32 << 20

	// The maximum number of events and duration of one request.
	requestEvents = 1000
	requestTime   = time.Second

	// The timeout of a request with its response. The server pauses reading when it is overloaded.
	requestTimeout = 30 * time.Second

	firstPause = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

// Forwarder sends the events of the event broker to the server. T is the broker's type for topics.
type Forwarder[T ~string] struct {
	url, token string
	client     *http.Client
	stop       context.CancelFunc
	stopped    chan struct{}

	mutex   sync.Mutex
	changed chan struct{} // closed, and replaced, at every change
	queue   []event       // not acknowledged, in their order
	bytes   int           // of their lines
	numbers uint64        // given so far
	dropped uint64
	closing bool
}

type event struct {
	number uint64
	line   []byte
}

// New starts a forwarder to the server whose Manager's port is at this URL. The token may be empty.
func New[T ~string](url, token string) *Forwarder[T] {
	ctx, stop := context.WithCancel(context.Background())
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	f := &Forwarder[T]{
		url:     strings.TrimRight(url, "/") + "/api/events",
		token:   token,
		client:  &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, IdleConnTimeout: 3 * time.Second}},
		stop:    stop,
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	go f.run(ctx)
	return f
}

// Broadcast queues an event. It never blocks.
func (f *Forwarder[T]) Broadcast(topic T, payload interface{}) {
	kind := kindOf(string(topic))
	if kind == "" {
		return
	}
	json, err := json.Marshal(payload)
	if err != nil {
		slog.Error("webupdates: an event cannot be encoded as JSON", "kind", kind, "error", err)
		return
	}

	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.closing {
		return
	}
	f.numbers++
	line := fmt.Appendf(nil, `{"type":%q,"id":"%s-%d","payload":%s}`+"\n", kind, instance, f.numbers, json)
	f.queue = append(f.queue, event{f.numbers, line})
	f.bytes += len(line)
	for len(f.queue) > maxQueuedEvents || f.bytes > maxQueuedBytes {
		f.dropped++
		f.forget(1)
	}
	f.notify()
}

// Dropped returns how many events were dropped, because the queue was full or the server refused them.
func (f *Forwarder[T]) Dropped() uint64 {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.dropped
}

// Close sends the queued events, for at most this time, and stops the forwarder.
func (f *Forwarder[T]) Close(patience time.Duration) {
	f.mutex.Lock()
	f.closing = true
	f.notify()
	f.mutex.Unlock()
	select {
	case <-f.stopped:
	case <-time.After(patience):
	}
	f.stop()
	<-f.stopped
}

// instance is the prefix of this process's event ids.
var instance = func() string {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err)
	}
	return hex.EncodeToString(random[:])
}()

// kindOf returns the kind of event on a topic. It is empty for events that the server derives itself, such as a job's copy
// of an image.
func kindOf(topic string) string {
	switch topic {
	case "/lifecycle":
		return "life-cycle"
	case "/status":
		return "farm-status"
	case "/jobs":
		return "job-update"
	case "/last-rendered":
		return "last-rendered"
	case "/workers":
		return "worker-update"
	case "/workertags":
		return "worker-tag-update"
	}
	if job, isJobs := strings.CutPrefix(topic, "/jobs/"); isJobs && !strings.Contains(job, "/") {
		return "task-update"
	}
	if strings.HasPrefix(topic, "/tasklog/") {
		return "task-log-update"
	}
	return ""
}

// notify wakes all goroutines that wait for a change. The mutex must be held.
func (f *Forwarder[T]) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// forget drops the first events of the queue. The mutex must be held.
func (f *Forwarder[T]) forget(count int) {
	for _, event := range f.queue[:count] {
		f.bytes -= len(event.line)
	}
	f.queue = f.queue[count:]
}

func (f *Forwarder[T]) run(ctx context.Context) {
	defer close(f.stopped)
	pause, complaint := firstPause, ""
	for f.wait(ctx) {
		err := f.send(ctx)
		if err == nil {
			pause, complaint = firstPause, ""
			continue
		}
		// A repeated error is logged once.
		if text := err.Error(); text != complaint && ctx.Err() == nil {
			slog.Warn("webupdates: events are kept and re-sent", "error", err)
			complaint = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + time.Duration(mathrand.Int63n(int64(pause)))):
		}
		pause = min(2*pause, maxPause)
	}
}

// wait returns true as soon as there is something to send, false when there never will be.
func (f *Forwarder[T]) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		f.mutex.Lock()
		isEmpty, closing, changed := len(f.queue) == 0, f.closing, f.changed
		f.mutex.Unlock()
		if !isEmpty || closing {
			return !isEmpty
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return false
}

// send makes one request and drops the events that the server accepted.
func (f *Forwarder[T]) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body := &body[T]{forwarder: f, ctx: ctx, end: time.Now().Add(requestTime)}
	defer body.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if f.token != "" {
		request.Header.Set("Authorization", "Bearer "+f.token)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	var answer struct {
		Accepted int
		Line     int
		Error    string
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("the server answers %s with something that is not JSON", response.Status)
	}
	body.Close()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	body.acknowledge(answer.Accepted)
	if response.StatusCode == http.StatusOK {
		return nil
	}
	// A refused line will always be refused.
	if answer.Line > 0 && answer.Line == answer.Accepted+1 {
		f.dropped++
		body.acknowledge(answer.Line)
		slog.Error("webupdates: an event is refused", "status", response.Status, "error", answer.Error)
		return nil
	}
	return fmt.Errorf("the server answers %s: %s", response.Status, answer.Error)
}

// body is the body of one request: the queued events, and those that are queued until the request ends.
type body[T ~string] struct {
	forwarder *Forwarder[T]
	ctx       context.Context
	end       time.Time

	rest   bytes.Reader // of the line that is being read; only the reader uses it
	sent   []uint64     // the numbers of the lines so far
	closed bool
}

func (b *body[T]) Read(into []byte) (int, error) {
	for b.rest.Len() == 0 {
		line, changed, err := b.next()
		if err != nil {
			return 0, err
		}
		b.rest.Reset(line)
		if line != nil {
			break
		}
		timer := time.NewTimer(time.Until(b.end))
		select {
		case <-changed:
		case <-timer.C:
		case <-b.ctx.Done():
		}
		timer.Stop()
	}
	return b.rest.Read(into)
}

func (b *body[T]) Close() error {
	b.forwarder.mutex.Lock()
	defer b.forwarder.mutex.Unlock()
	if !b.closed {
		b.closed = true
		b.forwarder.notify()
	}
	return nil
}

var errClosed = errors.New("the request is over")

// next returns the next line, or what to wait for.
func (b *body[T]) next() (line []byte, changed <-chan struct{}, err error) {
	f := b.forwarder
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if b.closed {
		return nil, nil, errClosed
	}
	if err := b.ctx.Err(); err != nil {
		return nil, nil, err
	}
	last := uint64(0)
	if len(b.sent) > 0 {
		last = b.sent[len(b.sent)-1]
	}
	isOver := len(b.sent) >= requestEvents || !time.Now().Before(b.end)
	// Numbers have no gaps, so a line's place follows from its number.
	if place := f.after(last); place < len(f.queue) && !isOver {
		b.sent = append(b.sent, f.queue[place].number)
		return f.queue[place].line, nil, nil
	}
	if isOver || f.closing {
		return nil, nil, io.EOF
	}
	return nil, f.changed, nil
}

// acknowledge drops the first lines of this request. The mutex must be held.
func (b *body[T]) acknowledge(lines int) {
	if lines = min(lines, len(b.sent)); lines > 0 {
		b.forwarder.forget(b.forwarder.after(b.sent[lines-1]))
	}
}

// after returns the place in the queue of the first event with a higher number. The mutex must be held.
func (f *Forwarder[T]) after(number uint64) int {
	if len(f.queue) == 0 || number < f.queue[0].number {
		return 0
	}
	return int(min(number-f.queue[0].number+1, uint64(len(f.queue))))
}
