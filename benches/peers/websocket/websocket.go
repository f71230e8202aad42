// Package websocket is the client's end of a WebSocket, as far as the programs beside it need it.
package websocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Conn is a connection. One goroutine may read while others send.
type Conn struct {
	connection net.Conn
	reader     *bufio.Reader
	sending    sync.Mutex
	message    []byte
}

// Dial opens a connection to a path, with a subprotocol unless it is empty. Reads fail after the deadline, unless it is zero.
func Dial(address, path, subprotocol string, deadline time.Time) (*Conn, error) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	_ = connection.SetReadDeadline(deadline)
	if subprotocol != "" {
		subprotocol = "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", path, address, subprotocol)
	reader := bufio.NewReaderSize(connection, 16384)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("no WebSocket: %s", answer.Status)
	}
	return &Conn{connection: connection, reader: reader}, nil
}

// Read returns a message, which is valid until the next one is read.
func (c *Conn) Read() ([]byte, error) {
	c.message = c.message[:0]
	for {
		head, err := c.piece(2)
		if err != nil {
			return nil, err
		}
		final, length := head[0]&0x80 != 0, uint64(head[1])
		if head[0]&0x0f == 8 {
			return nil, errors.New("the server closed the connection")
		}
		switch length {
		case 126:
			extended, _ := c.piece(2)
			length = uint64(binary.BigEndian.Uint16(extended))
		case 127:
			extended, _ := c.piece(8)
			length = binary.BigEndian.Uint64(extended)
		}
		start := len(c.message)
		c.message = append(c.message, make([]byte, length)...)
		if _, err := io.ReadFull(c.reader, c.message[start:]); err != nil {
			return nil, err
		}
		if final {
			return c.message, nil
		}
	}
}

func (c *Conn) piece(length int) ([]byte, error) {
	piece, err := c.reader.Peek(length)
	if err == nil {
		_, _ = c.reader.Discard(length)
	}
	return piece, err
}

// Send sends a text message of up to 64 KB, masked with zeros.
func (c *Conn) Send(text string) error {
	frame := []byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}
	if len(text) > 125 {
		frame = []byte{0x81, 0xfe, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := c.connection.Write(append(frame, text...))
	return err
}

// Close ends the connection without a closing handshake.
func (c *Conn) Close() error { return c.connection.Close() }
