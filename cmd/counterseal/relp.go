package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// relpClient is the sending side of RELP as far as the demo needs it.
type relpClient struct {
	conn net.Conn
	in   *bufio.Reader
	last int // transaction number
	open int // commands without an answer
}

func newRELPReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func (c *relpClient) command(name string, data []byte) error {
	c.last++
	b := strconv.AppendInt(nil, int64(c.last), 10)
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(data)), 10)
	if len(data) > 0 {
		b = append(b, ' ')
		b = append(b, data...)
	}
	b = append(b, '\n')
	c.open++
	_, err := c.conn.Write(b)
	return err
}

// await reads answers until at most n commands are without one.
func (c *relpClient) await(n int) error {
	for c.open > n {
		head := make([]string, 0, 3)
		for len(head) < 3 {
			word, err := c.in.ReadString(' ')
			if err != nil {
				return fmt.Errorf("reading an acknowledgement: %w", err)
			}
			head = append(head, strings.TrimSpace(word))
			if len(head) == 2 { // the length ends with a line end where there are no data
				rest, err := c.in.Peek(2)
				if err != nil {
					return fmt.Errorf("reading an acknowledgement: %w", err)
				}
				if rest[0] == '0' && rest[1] == '\n' {
					if _, err := c.in.Discard(2); err != nil {
						return err
					}
					head = append(head, "0")
				}
			}
		}
		size, err := strconv.Atoi(head[2])
		if err != nil || size < 0 || size > 1<<20 {
			return fmt.Errorf("an acknowledgement of a length that is none")
		}
		data := make([]byte, size)
		if size > 0 {
			if _, err := io.ReadFull(c.in, data); err != nil {
				return fmt.Errorf("reading an acknowledgement: %w", err)
			}
			if _, err := c.in.Discard(1); err != nil {
				return err
			}
		}
		if head[1] != "rsp" {
			return fmt.Errorf("the server ended the session")
		}
		if size > 0 && !strings.HasPrefix(string(data), "200") { // the answer to close is empty
			return errors.New("the server did not take a record")
		}
		c.open--
	}
	return nil
}
