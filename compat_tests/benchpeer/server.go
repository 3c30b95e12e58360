package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

const (
	orderLength = 32
	bufferSize  = 1 << 20
	grace       = 10 * time.Second // without a message, after which stamps gives up
)

// obey reads a session's order and carries it out.
func obey(session *kcp.UDPSession) {
	defer session.Close()
	line := make([]byte, orderLength)
	if _, err := io.ReadFull(session, line); err != nil {
		return // the client's report tells of it
	}
	var verb string
	var first, second int64
	// Fewer numbers than these are an error to Sscan, and right.
	fmt.Sscan(strings.TrimSpace(string(line)), &verb, &first, &second)
	switch verb {
	case "sink":
		sink(session, first)
	case "source":
		source(session, first)
	case "echo":
		echo(session)
	case "drain":
		drain(session, time.Duration(first)*time.Millisecond, second)
	case "stamps":
		stamps(session, int(first), int(second))
	}
}

// linger waits for the client to say that it has all: kcp-go's Close drops what is still queued, and tells nobody.
func linger(session *kcp.UDPSession) {
	session.SetReadDeadline(time.Now().Add(grace))
	session.Read(make([]byte, 1))
}

func sink(session *kcp.UDPSession, count int64) {
	buffer := make([]byte, bufferSize)
	for count > 0 {
		n, err := session.Read(buffer)
		if err != nil {
			return
		}
		count -= int64(n)
	}
	session.Write([]byte{'.'})
	linger(session)
}

func source(session *kcp.UDPSession, count int64) {
	buffer := make([]byte, 64<<10)
	for count > 0 {
		n, err := session.Write(buffer[:min(int64(len(buffer)), count)])
		if err != nil {
			return
		}
		count -= int64(n)
	}
	linger(session)
}

func echo(session *kcp.UDPSession) {
	buffer := make([]byte, bufferSize/16)
	for {
		n, err := session.Read(buffer)
		if err != nil {
			return
		}
		if _, err := session.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func drain(session *kcp.UDPSession, limit time.Duration, count int64) {
	buffer := make([]byte, bufferSize)
	tenths := make([]int64, limit.Milliseconds()/100+1)
	begin, total := time.Now(), int64(0)
	session.SetReadDeadline(begin.Add(limit))
	for total == 0 || total != count {
		n, err := session.Read(buffer)
		if err != nil {
			break
		}
		total += int64(n)
		tenths[min(int(time.Since(begin).Milliseconds()/100), len(tenths)-1)] += int64(n)
	}
	say(object{"drained": total, "seconds": time.Since(begin).Seconds(), "tenths": tenths})
}

func stamps(session *kcp.UDPSession, count, size int) {
	latencies := make([]float64, 0, count)
	message := make([]byte, size)
	result := object{}
	for len(latencies) < count {
		session.SetReadDeadline(time.Now().Add(grace))
		if _, err := io.ReadFull(session, message); err != nil {
			result["error"] = err.Error()
			break
		}
		due := int64(binary.LittleEndian.Uint64(message))
		latencies = append(latencies, float64(monotonic()-due)/1e6)
	}
	result["latencies"] = latencies
	say(result)
}

// answerOnce sends a request of -size bytes back.
func answerOnce(o *options, session *kcp.UDPSession) {
	defer session.Close()
	message := make([]byte, o.size)
	if _, err := io.ReadFull(session, message); err != nil {
		return
	}
	session.Write(message)
	linger(session)
}
