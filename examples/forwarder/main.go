// Command forwarder streams events from its standard input, one JSON object per line, to a web-update server.
//
//	forwarder [-token-file FILE] URL < events.ndjson
//
// The server publishes each line of a request as it arrives, and acknowledges at the end of the request. The forwarder ends a
// request after a second or a thousand events. Until a request is acknowledged its events are kept; after a failure they are
// sent again with the ids that they had, so that the server publishes none of them twice.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	requestEvents  = 1000
	requestTime    = time.Second
	maxLine        = 16 << 20
	requestTimeout = 30 * time.Second
	firstPause     = 100 * time.Millisecond
	maxPause       = 3 * time.Second
	attempts       = 20
)

// errRefused means that the server will never accept these events.
var errRefused = errors.New("refused")

func main() {
	tokenFile := flag.String("token-file", "", "file with the Manager's token")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: forwarder [-token-file FILE] URL < events.ndjson")
	}
	token := ""
	if *tokenFile != "" {
		text, err := os.ReadFile(*tokenFile)
		if err != nil {
			log.Fatal(err)
		}
		token = strings.TrimSpace(string(text))
	}
	f := forwarder{
		url:    strings.TrimRight(flag.Arg(0), "/") + "/api/events",
		token:  token,
		client: &http.Client{Timeout: requestTimeout},
	}
	accepted, err := f.forward(lines(os.Stdin))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("forwarded %d\n", accepted)
}

// lines sends each line of the input that is not empty, with an id if it has none. The channel is small, so a slow server slows
// down the reading of the input.
func lines(input io.Reader) <-chan []byte {
	out := make(chan []byte, 16)
	go func() {
		defer close(out)
		scanner := bufio.NewScanner(input)
		scanner.Buffer(nil, maxLine)
		for number := 1; scanner.Scan(); number++ {
			if line := bytes.TrimSpace(scanner.Bytes()); len(line) > 0 {
				line, err := withID(line)
				if err != nil {
					log.Fatalf("line %d: %v", number, err)
				}
				out <- line
			}
		}
		if err := scanner.Err(); err != nil {
			log.Fatal(err)
		}
	}()
	return out
}

// withID returns the event as one line.
func withID(line []byte) ([]byte, error) {
	var event struct {
		Type    string          `json:"type"`
		ID      string          `json:"id"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return nil, err
	}
	if event.ID == "" {
		var random [16]byte
		if _, err := rand.Read(random[:]); err != nil {
			return nil, err
		}
		event.ID = hex.EncodeToString(random[:])
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(event)
	return out.Bytes(), err
}

type forwarder struct {
	url, token string
	client     *http.Client
}

// forward sends all events, in their order, and returns how many were accepted.
func (f forwarder) forward(events <-chan []byte) (int, error) {
	total := 0
	for first := range events {
		// While the first attempt streams, what it sends is also kept.
		kept := [][]byte{first}
		accepted, err := f.post(func(body io.Writer) error {
			if _, err := body.Write(first); err != nil {
				return err
			}
			end := time.After(requestTime)
			for len(kept) < requestEvents {
				select {
				case line, open := <-events:
					if !open {
						return nil
					}
					kept = append(kept, line)
					if _, err := body.Write(line); err != nil {
						return err
					}
				case <-end:
					return nil
				}
			}
			return nil
		})
		for attempt, pause := 1, firstPause; err != nil; attempt, pause = attempt+1, min(2*pause, maxPause) {
			if errors.Is(err, errRefused) || attempt == attempts {
				return total, err
			}
			log.Printf("retrying %d events: %v", len(kept), err)
			time.Sleep(pause)
			accepted, err = f.post(func(body io.Writer) error {
				_, err := body.Write(bytes.Join(kept, nil))
				return err
			})
		}
		total += accepted
	}
	return total, nil
}

// post makes one request whose body write produces, and returns how many events the server accepted.
func (f forwarder) post(write func(io.Writer) error) (int, error) {
	reader, writer := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		writer.CloseWithError(write(writer))
	}()
	// write must have returned before its caller goes on; a request that failed reads no further, which ends it.
	defer func() {
		reader.Close()
		<-written
	}()
	request, err := http.NewRequest(http.MethodPost, f.url, reader)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if f.token != "" {
		request.Header.Set("Authorization", "Bearer "+f.token)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return 0, err
	}
	switch response.StatusCode {
	case http.StatusOK:
		var answer struct{ Accepted int }
		return answer.Accepted, json.Unmarshal(text, &answer)
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 0, fmt.Errorf("%s: %s", response.Status, text)
	}
	return 0, fmt.Errorf("%w: %s: %s", errRefused, response.Status, text)
}
