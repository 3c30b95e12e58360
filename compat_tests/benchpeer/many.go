package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

const (
	atOnce       = 256 // connections that are being made at the same time
	connectLimit = time.Minute
	lastAnswers  = 5 * time.Second
)

// connectMany makes connections, each proved by an echo of one byte.
func connectMany(o *options) ([]*kcp.UDPSession, error) {
	sessions := make([]*kcp.UDPSession, o.connections)
	failures := make(chan error, o.connections)
	tickets := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range sessions {
		all.Add(1)
		tickets <- struct{}{}
		go func() {
			defer func() { <-tickets; all.Done() }()
			session, err := o.dial()
			if err == nil {
				sessions[i] = session
				session.SetReadDeadline(time.Now().Add(connectLimit))
				if err = order(session, "echo"); err == nil {
					if _, err = session.Write([]byte{'?'}); err == nil {
						_, err = io.ReadFull(session, make([]byte, 1))
					}
				}
			}
			if err != nil {
				failures <- err
			}
		}()
	}
	all.Wait()
	select {
	case err := <-failures:
		return nil, fmt.Errorf("%d and more of %d connections failed: %w", len(failures)+1, o.connections, err)
	default:
		return sessions, nil
	}
}

// many is idle or load.
func many(o *options, input <-chan string) error {
	sessions, err := connectMany(o)
	if err != nil {
		return err
	}
	say(object{"ready": len(sessions)})
	<-input // "go" or "stop"
	if o.role == "load" {
		say(load(o, sessions))
	}
	return nil
}

// load has every session send a message -rate times a second, spread evenly, and read its echo. Latencies in ms count
// from the time at which a message was due.
func load(o *options, sessions []*kcp.UDPSession) object {
	each := int(o.rate * o.seconds)
	total := each * len(sessions)
	gap := time.Duration(float64(time.Second) / (o.rate * float64(len(sessions))))
	message := noise(o.size)
	latencies := make([][]float64, len(sessions))
	var errors atomic.Int64
	var all sync.WaitGroup
	cpu, begin := cpuSeconds(), time.Now()
	end := begin.Add(time.Duration(o.seconds*float64(time.Second)) + lastAnswers)
	due := func(session, index int) time.Time {
		return begin.Add(gap * time.Duration(index*len(sessions)+session))
	}
	for i, session := range sessions {
		session.SetDeadline(end)
		all.Add(2)
		go func() {
			defer all.Done()
			for k := range each {
				time.Sleep(time.Until(due(i, k)))
				if _, err := session.Write(message); err != nil {
					errors.Add(int64(each - k))
					return
				}
			}
		}()
		go func() {
			defer all.Done()
			buffer := make([]byte, o.size)
			for k := range each {
				if _, err := io.ReadFull(session, buffer); err != nil {
					return
				}
				latencies[i] = append(latencies[i], float64(time.Since(due(i, k)).Microseconds())/1000)
			}
		}()
	}
	all.Wait()
	sorted := slices.Concat(latencies...)
	slices.Sort(sorted)
	return object{
		"messages": total, "errors": errors.Load(), "refused": 0,
		"missing": total - int(errors.Load()) - len(sorted),
		"p50":     percentile(sorted, 50), "p99": percentile(sorted, 99), "max": percentile(sorted, 100),
		"seconds": time.Since(begin).Seconds(), "cpu": cpuSeconds() - cpu,
	}
}
