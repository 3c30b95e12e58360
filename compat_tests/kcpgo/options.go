package main

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xtaci/kcp-go/v5"
)

// options is the command line.
type options struct {
	listen, dial           string        // address; exactly one of the two
	role                   string        // one of the keys of roles
	bytes                  int64         // payload of a sink or a source; of an echo: report after so many
	banner                 string        // what greet says first, without the newline
	deadline               time.Duration // the process fails when it still runs after this
	crypt, key             string
	datashard, parityshard int
	sndwnd, rcvwnd         int // packets
	mtu                    int // bytes of UDP payload
	nodelay, interval      int // interval: ms
	resend, nc             int
	stream, acknodelay     bool
	sockbuf                int // bytes
	conv                   uint
}

// parseOptions reads the command line. The defaults are kcptun's mode fast2 with windows that suit a local test.
func parseOptions(arguments []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("kcpgo", flag.ContinueOnError)
	set.StringVar(&o.listen, "listen", "", "serve on this `address`; port 0 picks a free one")
	set.StringVar(&o.dial, "dial", "", "connect to this `address`")
	set.StringVar(&o.role, "role", "echo", "echo, sink, source or greet")
	set.Int64Var(&o.bytes, "bytes", 0, "payload in bytes of a sink or source; an echo reports after so many")
	set.StringVar(&o.banner, "banner", "kcpgo ready", "the line that greet says first")
	set.DurationVar(&o.deadline, "deadline", 2*time.Minute, "fail when still running after this time")
	set.StringVar(&o.crypt, "crypt", "null", "a cipher by kcptun's `name`")
	set.StringVar(&o.key, "key", "", "passphrase, derived as kcptun does")
	set.IntVar(&o.datashard, "datashard", 0, "FEC data shards in a group; 0: no FEC")
	set.IntVar(&o.parityshard, "parityshard", 0, "FEC parity shards in a group")
	set.IntVar(&o.sndwnd, "sndwnd", 1024, "send window in packets")
	set.IntVar(&o.rcvwnd, "rcvwnd", 1024, "receive window in packets")
	set.IntVar(&o.mtu, "mtu", 1400, "bytes of UDP payload, all headers included")
	set.IntVar(&o.nodelay, "nodelay", 1, "1: RTO grows by half instead of doubling")
	set.IntVar(&o.interval, "interval", 20, "flush interval in ms")
	set.IntVar(&o.resend, "resend", 2, "acks that skip a packet before it is sent again; 0: off")
	set.IntVar(&o.nc, "nc", 1, "1: no congestion control")
	set.BoolVar(&o.stream, "stream", true, "stream mode; false: message mode")
	set.BoolVar(&o.acknodelay, "acknodelay", false, "send every ack at once")
	set.IntVar(&o.sockbuf, "sockbuf", 4<<20, "kernel buffers of the UDP socket in bytes")
	set.UintVar(&o.conv, "conv", 0, "conversation id of a dialled session; 0: random")
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if (o.listen == "") == (o.dial == "") {
		return nil, fmt.Errorf("give one of -listen and -dial")
	}
	if _, known := roles[o.role]; !known {
		return nil, fmt.Errorf("-role %q: must be echo, sink, source or greet", o.role)
	}
	if o.bytes < 0 || (o.bytes == 0 && (o.role == "sink" || o.role == "source")) {
		return nil, fmt.Errorf("-bytes %d: a %s needs a positive count", o.bytes, o.role)
	}
	return o, nil
}

// cipherNamed is one of the ciphers that kcptun offers: how much of the derived key it takes, and its constructor.
type cipherNamed struct {
	keyLength int
	construct func(key []byte) (kcp.BlockCrypt, error)
}

var ciphers = map[string]cipherNamed{
	"none":        {32, kcp.NewNoneBlockCrypt},
	"xor":         {32, kcp.NewSimpleXORBlockCrypt},
	"tea":         {16, kcp.NewTEABlockCrypt},
	"xtea":        {16, kcp.NewXTEABlockCrypt},
	"aes":         {32, kcp.NewAESBlockCrypt},
	"aes-192":     {24, kcp.NewAESBlockCrypt},
	"aes-128":     {16, kcp.NewAESBlockCrypt},
	"aes-128-gcm": {16, kcp.NewAESGCMCrypt},
	"blowfish":    {32, kcp.NewBlowfishBlockCrypt},
	"twofish":     {32, kcp.NewTwofishBlockCrypt},
	"cast5":       {16, kcp.NewCast5BlockCrypt},
	"3des":        {24, kcp.NewTripleDESBlockCrypt},
	"salsa20":     {32, kcp.NewSalsa20BlockCrypt},
	"sm4":         {16, kcp.NewSM4BlockCrypt},
}

// block makes the cipher that the options name; "null" is kcp-go's nil block, without any crypto header.
func (o *options) block() (kcp.BlockCrypt, error) {
	if o.crypt == "null" {
		return nil, nil
	}
	named, known := ciphers[o.crypt]
	if !known {
		names := []string{"null"}
		for name := range ciphers {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("-crypt %q: must be one of %s", o.crypt, strings.Join(names, ", "))
	}
	key, err := pbkdf2.Key(sha1.New, o.key, []byte("kcp-go"), 4096, 32)
	if err != nil {
		return nil, err
	}
	return named.construct(key[:named.keyLength])
}

// tune applies the options to a session, dialled or accepted.
func (o *options) tune(session *kcp.UDPSession) error {
	session.SetStreamMode(o.stream)
	session.SetWriteDelay(false)
	session.SetNoDelay(o.nodelay, o.interval, o.resend, o.nc)
	session.SetWindowSize(o.sndwnd, o.rcvwnd)
	session.SetACKNoDelay(o.acknodelay)
	if !session.SetMtu(o.mtu) {
		return fmt.Errorf("-mtu %d: kcp-go refuses it", o.mtu)
	}
	return nil
}
