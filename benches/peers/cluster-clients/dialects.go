package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"regexp"
	"strings"
)

// dialect is how a system is spoken to.
type dialect struct {
	path, subprotocol string
	// What a client sends from time to time, and what it answers with the same.
	ping, pong string
	// open returns what a client sends to subscribe, from its place if it has one.
	open func(place) []string
	// subscribed returns whether a message confirms that.
	subscribed func(frame []byte) bool
	// note takes the place from the confirmation or from an event.
	note func(frame []byte, place *place)
	// post returns where events are posted, and the body.
	post func(payloads []string) (path, body string)
}

var dialects = map[string]dialect{
	"server": {
		path:       "/socket.io/?EIO=3&transport=websocket",
		ping:       "2",
		open:       func(place) []string { return nil },
		subscribed: func(frame []byte) bool { return string(frame) == "40" },
		note:       func([]byte, *place) {},
		post:       postToServer,
	},
	// The same server; its clients can resume.
	"resumable": {
		path: "/socket.io/?EIO=3&transport=websocket&resume=1",
		ping: "2",
		open: func(from place) []string {
			token, _ := json.Marshal(from.token)
			if from.token == "" {
				token = []byte("null")
			}
			return []string{fmt.Sprintf(`420["/resume",{"token":%s,"rooms":["Jobs"]}]`, token)}
		},
		subscribed: func(frame []byte) bool { return bytes.HasPrefix(frame, []byte("430[")) },
		note: func(frame []byte, place *place) {
			if found := inAnswer.FindSubmatch(frame); found != nil {
				place.token = string(found[1])
			} else if found := inEvent.FindSubmatch(frame); found != nil {
				place.token = string(found[1])
			}
		},
		post: postToServer,
	},
	"centrifugo": {
		path: "/connection/websocket",
		pong: "{}",
		open: func(from place) []string {
			recovery := ""
			if from.epoch != "" {
				recovery = fmt.Sprintf(`,"recover":true,"offset":%s,"epoch":%q`, from.offset, from.epoch)
			}
			return []string{`{"id":1,"connect":{}}`, `{"id":2,"subscribe":{"channel":"jobs"` + recovery + `}}`}
		},
		subscribed: func(frame []byte) bool {
			if bytes.Contains(frame, []byte(`"error"`)) {
				log.Fatal(string(frame))
			}
			return bytes.Contains(frame, []byte(`"id":2,`))
		},
		note: noteOffset,
		post: func(payloads []string) (string, string) {
			if len(payloads) == 1 {
				return "/api/publish", `{"channel":"jobs","data":` + payloads[0] + `}`
			}
			return "/api/batch", `{"commands":[{"publish":{"channel":"jobs","data":` +
				strings.Join(payloads, `}},{"publish":{"channel":"jobs","data":`) + `}}]}`
		},
	},
}

var (
	inAnswer = regexp.MustCompile(`"token":"([^"]+)"`)
	inEvent  = regexp.MustCompile(`,"([^"]+)"\]$`)
	epoch    = regexp.MustCompile(`"epoch":"([^"]+)"`)
	offset   = regexp.MustCompile(`"offset":(\d+)`)
)

func postToServer(payloads []string) (string, string) {
	return "/api/events", `[{"type":"job-update","payload":` + strings.Join(payloads, `},{"type":"job-update","payload":`) + `}]`
}

// noteOffset takes the place of systems that number the events of an epoch.
func noteOffset(frame []byte, place *place) {
	if found := epoch.FindSubmatch(frame); found != nil {
		place.epoch = string(found[1])
	}
	if found := offset.FindSubmatch(frame); found != nil {
		place.offset = string(found[1])
	}
}
