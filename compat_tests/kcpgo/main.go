// Command kcpgo is a peer that speaks KCP through kcp-go itself, for the tests to talk to.
//
// On standard output it prints one JSON object a line: {"listening": ADDRESS} or {"dialling": ADDRESS, "from": ADDRESS}
// first, a report for each session that has finished its role, and {"snmp": {...}}, kcp-go's counters, last.
//
// kcp-go's Close drops what is still queued, so a process that left after its last write would take the end of its stream
// with it. Therefore it runs until its standard input ends: whoever started it says so once everything has arrived, and
// nothing stays behind when that one dies. The exit code is 0 when no session failed and the deadline was kept.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/xtaci/kcp-go/v5"
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

// converse plays the role on a session and reports it. Out-of-band packets, where FEC allows them, are sent back as they
// came, whatever the role.
func converse(o *options, session *kcp.UDPSession) error {
	if o.datashard > 0 {
		err := session.SetOOBHandler(func(packet []byte) { _ = session.SendOOB(bytes.Clone(packet)) })
		if err != nil {
			return err
		}
	}
	result, err := roles[o.role](o, session)
	if err != nil {
		return fmt.Errorf("%s with %v: %w", o.role, session.RemoteAddr(), err)
	}
	result.Role, result.Peer, result.Conv = o.role, session.RemoteAddr().String(), session.GetConv()
	say(result)
	return nil
}

// serve accepts sessions for ever and plays the role with each; what fails goes to failures.
func serve(o *options, failures chan<- error) error {
	block, err := o.block()
	if err != nil {
		return err
	}
	listener, err := kcp.ListenWithOptions(o.listen, block, o.datashard, o.parityshard)
	if err != nil {
		return err
	}
	if err := errors.Join(listener.SetReadBuffer(o.sockbuf), listener.SetWriteBuffer(o.sockbuf)); err != nil {
		return err
	}
	say(map[string]string{"listening": listener.Addr().String()})
	go func() {
		for {
			session, err := listener.AcceptKCP()
			if err != nil {
				failures <- err
				return
			}
			if err := o.tune(session); err != nil {
				failures <- err
				return
			}
			go func() {
				if err := converse(o, session); err != nil {
					failures <- err
				}
			}()
		}
	}()
	return nil
}

// call dials and plays the role; what fails goes to failures.
func call(o *options, failures chan<- error) error {
	block, err := o.block()
	if err != nil {
		return err
	}
	remote, err := net.ResolveUDPAddr("udp", o.dial)
	if err != nil {
		return err
	}
	network := "udp"
	if remote.IP.To4() != nil {
		network = "udp4"
	}
	local, err := net.ListenUDP(network, nil) // as kcp-go's DialWithOptions, which takes no conv
	if err != nil {
		return err
	}
	conv := uint32(o.conv)
	if conv == 0 {
		conv = rand.Uint32()
	}
	session, err := kcp.NewConn3(conv, remote, block, o.datashard, o.parityshard, local)
	if err != nil {
		return err
	}
	if err := errors.Join(local.SetReadBuffer(o.sockbuf), local.SetWriteBuffer(o.sockbuf), o.tune(session)); err != nil {
		return err
	}
	say(map[string]string{"dialling": remote.String(), "from": local.LocalAddr().String()})
	go func() {
		if !speaksFirst[o.role] {
			if _, err := io.WriteString(session, "hello\n"); err != nil {
				failures <- err
				return
			}
		}
		if err := converse(o, session); err != nil {
			failures <- err
		}
	}()
	return nil
}

// run starts what the options ask for and waits for the end of standard input, a failure or the deadline.
func run(o *options) error {
	failures := make(chan error, 1)
	begin := serve
	if o.dial != "" {
		begin = call
	}
	if err := begin(o, failures); err != nil {
		return err
	}
	released := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		released <- err
	}()
	select {
	case err := <-failures:
		return err
	case err := <-released:
		say(map[string]any{"snmp": kcp.DefaultSnmp.Copy()})
		return err
	case <-time.After(o.deadline):
		return fmt.Errorf("still running after %v", o.deadline)
	}
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kcpgo:", err)
		os.Exit(1)
	}
}
