package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// report is the JSON line about a finished session.
type report struct {
	Role    string  `json:"role"`
	Peer    string  `json:"peer"`
	Conv    uint32  `json:"conv"`
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"`
	Seconds float64 `json:"seconds"`
}

// role speaks on one connection and fills in the payload's part of the report. A role without an end (nil report) serves
// until the process ends: kcp-go never tells a reader that its peer is gone.
type role func(o *options, connection io.ReadWriter) (*report, error)

var roles = map[string]role{"echo": echo, "sink": sink, "source": source, "greet": greet}

// speaksFirst tells which roles send before they read. kcp-go puts nothing on the network until the first write, so the
// others, when they dial, must say something (a line "hello") or the server would never see them.
var speaksFirst = map[string]bool{"source": true, "greet": true}

const bufferSize = 64 << 10

// finish completes a report from what went through the digest.
func finish(bytes int64, digest []byte, begin time.Time) *report {
	return &report{Bytes: bytes, SHA256: hex.EncodeToString(digest), Seconds: time.Since(begin).Seconds()}
}

// echo sends back what it reads; with -bytes it is done after so many, else it goes on for ever.
func echo(o *options, connection io.ReadWriter) (*report, error) {
	digest, begin := sha256.New(), time.Now()
	reader := io.Reader(connection)
	if o.bytes > 0 {
		reader = io.LimitReader(connection, o.bytes)
	}
	n, err := io.CopyBuffer(connection, io.TeeReader(reader, digest), make([]byte, bufferSize))
	if err != nil {
		return nil, err
	}
	return finish(n, digest.Sum(nil), begin), nil
}

// sink reads -bytes bytes, then tells the sender their digest in a line of hexadecimal.
func sink(o *options, connection io.ReadWriter) (*report, error) {
	digest, begin := sha256.New(), time.Now()
	n, err := io.CopyBuffer(digest, io.LimitReader(connection, o.bytes), make([]byte, bufferSize))
	if err != nil {
		return nil, err
	}
	result := finish(n, digest.Sum(nil), begin)
	_, err = fmt.Fprintln(connection, result.SHA256)
	return result, err
}

// source sends -bytes deterministic bytes, and is done when the reader has answered with a line: their digest.
func source(o *options, connection io.ReadWriter) (*report, error) {
	digest, begin := sha256.New(), time.Now()
	generator := rand.NewChaCha8([32]byte{'k', 'c', 'p', 'g', 'o'})
	buffer := make([]byte, bufferSize)
	for left := o.bytes; left > 0; left -= int64(len(buffer)) {
		buffer = buffer[:min(int64(len(buffer)), left)]
		generator.Read(buffer)
		digest.Write(buffer)
		if _, err := connection.Write(buffer); err != nil {
			return nil, err
		}
	}
	result := finish(o.bytes, digest.Sum(nil), begin)
	// The dialler of a sink has opened the session with "hello": it comes before the digest.
	lines := bufio.NewReader(connection)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("no digest came back: %w", err)
		}
		line = strings.TrimSpace(line)
		if line == "hello" {
			continue
		}
		if line != result.SHA256 {
			return nil, fmt.Errorf("the reader got other bytes: its digest is %q, ours %s", line, result.SHA256)
		}
		result.Seconds = time.Since(begin).Seconds()
		return result, nil
	}
}

// greet says its banner before it has read anything, then sends each line back as it came.
func greet(o *options, connection io.ReadWriter) (*report, error) {
	if _, err := fmt.Fprintln(connection, o.banner); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(connection)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if _, err = io.WriteString(connection, line); err != nil {
			return nil, err
		}
	}
}
