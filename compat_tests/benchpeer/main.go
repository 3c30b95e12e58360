// Command benchpeer is kcp-go's side of the benchmarks: the roles of kcpsocket/bench/worker.py, and the orders of
// kcpsocket/bench/orders.py, on kcp-go.
//
// It prints a JSON object a line: {"listening": PORT} first for a server, then results; {"failed": REASON} instead of a
// result. On a line "usage" on standard input it answers with its CPU time; it leaves when standard input ends.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"golang.org/x/sys/unix"
)

var outputLock sync.Mutex

// say prints one JSON line; sessions do so at the same time.
func say(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		panic(err) // only values made here come in
	}
	outputLock.Lock()
	defer outputLock.Unlock()
	fmt.Printf("%s\n", line)
}

type object = map[string]any

// cpuSeconds is the CPU time that this process has used.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// monotonic is CLOCK_MONOTONIC in ns, the same in every process of the machine.
func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}

// serve accepts sessions for ever.
func serve(o *options) error {
	block, err := o.block()
	if err != nil {
		return err
	}
	listener, err := kcp.ListenWithOptions(o.address(), block, o.datashard, o.parityshard)
	if err != nil {
		return err
	}
	if err := errors.Join(listener.SetReadBuffer(o.sockbuf), listener.SetWriteBuffer(o.sockbuf)); err != nil {
		return err
	}
	go func() {
		for {
			session, err := listener.AcceptKCP()
			if err == nil {
				err = o.tune(session)
			}
			if err != nil {
				say(object{"failed": err.Error()})
				return
			}
			if o.style == "serial" {
				go answerOnce(o, session)
			} else {
				go obey(session)
			}
		}
	}()
	say(object{"listening": listener.Addr().(*net.UDPAddr).Port})
	return nil
}

// words gives the lines of standard input as they come; the process leaves at its end.
func words() <-chan string {
	lines := make(chan string)
	go func() {
		scanner := bufio.NewScanner(os.Stdin)
		for scanner.Scan() {
			line := strings.TrimSpace(scanner.Text())
			if line == "usage" {
				say(object{"cpu": cpuSeconds()})
				continue
			}
			lines <- line
		}
		os.Exit(0)
	}()
	return lines
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpeer:", err)
		os.Exit(2)
	}
	input := words()
	if o.role == "serve" {
		err = serve(o)
	} else {
		err = call(o, input)
	}
	if err != nil {
		say(object{"failed": err.Error()})
	}
	select {} // until standard input ends
}
