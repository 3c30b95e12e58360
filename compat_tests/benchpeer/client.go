package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

// order writes an order (see kcpsocket/bench/orders.py).
func order(session io.Writer, text string) error {
	_, err := fmt.Fprintf(session, "%-*s\n", orderLength-1, text)
	return err
}

// percentile is the nearest-rank percentile of samples that are sorted.
func percentile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max((len(sorted)*percent+99)/100, 1)-1]
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.Read(data) // never fails
	return data
}

// call plays a client's role and says its result.
func call(o *options, input <-chan string) error {
	switch o.role {
	case "cipher":
		return benchCiphers(o)
	case "fec":
		return benchErasure(o)
	case "connects":
		return connects(o)
	case "idle", "load":
		return many(o, input)
	}
	session, err := o.dial()
	if err != nil {
		return err
	}
	var result object
	switch o.role {
	case "bulk":
		result, err = bulk(o, session)
	case "echo":
		result, err = ping(o, session)
	case "pour":
		result, err = pour(o, session)
	case "stamps":
		result, err = sendStamps(o, session)
	default:
		err = fmt.Errorf("-role %q: unknown", o.role)
	}
	if err != nil {
		return err
	}
	result["info"] = object{"srtt": session.GetSRTT(), "rto": session.GetRTO(), "snmp": kcp.DefaultSnmp.Copy()}
	say(result)
	return nil
}

func bulk(o *options, session *kcp.UDPSession) (object, error) {
	verb := "sink"
	if o.reverse {
		verb = "source"
	}
	if err := order(session, fmt.Sprint(verb, " ", o.bytes)); err != nil {
		return nil, err
	}
	begin, cpu := time.Now(), cpuSeconds()
	left := o.bytes
	if o.reverse {
		buffer := make([]byte, bufferSize)
		for left > 0 {
			n, err := session.Read(buffer)
			if err != nil {
				return nil, err
			}
			left -= int64(n)
		}
	} else {
		chunk := noise(o.size)
		for left > 0 {
			n, err := session.Write(chunk[:min(left, int64(len(chunk)))])
			if err != nil {
				return nil, err
			}
			left -= int64(n)
		}
		if _, err := io.ReadFull(session, make([]byte, 1)); err != nil {
			return nil, err
		}
	}
	return object{"seconds": time.Since(begin).Seconds(), "cpu": cpuSeconds() - cpu}, nil
}

func ping(o *options, session *kcp.UDPSession) (object, error) {
	if err := order(session, "echo"); err != nil {
		return nil, err
	}
	message, buffer := noise(o.size), make([]byte, o.size)
	times := make([]float64, 0, o.count)
	cpu := cpuSeconds()
	for range o.count {
		begin := time.Now()
		if _, err := session.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(session, buffer); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(begin).Nanoseconds())/1000)
	}
	if !bytes.Equal(message, buffer) {
		return nil, fmt.Errorf("the echo is not what was sent")
	}
	slices.Sort(times)
	return object{"median": percentile(times, 50), "p99": percentile(times, 99), "cpu": cpuSeconds() - cpu}, nil
}

func pour(o *options, session *kcp.UDPSession) (object, error) {
	limit := time.Duration(o.seconds * float64(time.Second))
	if err := order(session, fmt.Sprint("drain ", limit.Milliseconds(), " ", o.bytes)); err != nil {
		return nil, err
	}
	session.SetWriteDeadline(time.Now().Add(limit))
	chunk := noise(o.size)
	for sent := int64(0); o.bytes == 0 || sent < o.bytes; {
		part := chunk
		if o.bytes > 0 {
			part = chunk[:min(int64(len(chunk)), o.bytes-sent)]
		}
		n, err := session.Write(part)
		if err != nil {
			break // the time is over
		}
		sent += int64(n)
	}
	return object{"poured": true}, nil
}

func sendStamps(o *options, session *kcp.UDPSession) (object, error) {
	if err := order(session, fmt.Sprint("stamps ", o.count, " ", o.size)); err != nil {
		return nil, err
	}
	message, begin := noise(o.size), monotonic()
	for i := range o.count {
		due := begin + int64(float64(i)*o.every*1e9)
		time.Sleep(time.Duration(due - monotonic()))
		binary.LittleEndian.PutUint64(message, uint64(due))
		session.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := session.Write(message); err != nil {
			return nil, err
		}
	}
	return object{"stamped": true}, nil
}

func connects(o *options) error {
	message, buffer := noise(o.size), make([]byte, o.size)
	errors, cpu, begin := 0, cpuSeconds(), time.Now()
	for range o.count {
		session, err := o.dial()
		if err != nil {
			return err
		}
		session.SetDeadline(time.Now().Add(grace))
		if _, err := session.Write(message); err != nil {
			errors++
		} else if _, err := io.ReadFull(session, buffer); err != nil {
			errors++
		}
		session.Close()
	}
	say(object{"seconds": time.Since(begin).Seconds(), "cpu": cpuSeconds() - cpu, "errors": errors})
	return nil
}
