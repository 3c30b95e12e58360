package main

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"flag"
	"fmt"
	"net"
	"strconv"

	"github.com/xtaci/kcp-go/v5"
)

// options is the command line.
type options struct {
	role                   string
	host                   string
	port                   int
	style                  string // of a server: "serial" for one request a connection; any other: whatever is ordered
	bytes                  int64
	size, count            int     // bytes of a message; how many
	connections            int     // of idle and load
	rate                   float64 // messages a second on each
	seconds, every         float64
	reverse                bool
	crypt, key             string
	datashard, parityshard int
	sndwnd, rcvwnd         int // packets
	mtu                    int // bytes of UDP payload
	nodelay, interval      int // interval: ms
	resend, nc             int
	acknodelay             bool
	sockbuf                int // bytes
}

func parseOptions(arguments []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("benchpeer", flag.ContinueOnError)
	set.StringVar(&o.role, "role", "serve", "serve, bulk, echo, pour, stamps, connects, idle, load, cipher or fec")
	set.StringVar(&o.host, "host", "127.0.0.1", "IPv4 `address` to serve on or to connect to")
	set.IntVar(&o.port, "port", 0, "port; a server with 0 picks a free one")
	set.StringVar(&o.style, "style", "", "of a server: serial, or anything else")
	set.Int64Var(&o.bytes, "bytes", 0, "payload of bulk")
	set.IntVar(&o.size, "size", 64<<10, "bytes of a message or a write")
	set.IntVar(&o.count, "count", 0, "how many messages or connections, one after another")
	set.IntVar(&o.connections, "connections", 0, "how many at the same time")
	set.Float64Var(&o.rate, "rate", 0, "messages a second on each connection")
	set.Float64Var(&o.seconds, "seconds", 0, "how long")
	set.Float64Var(&o.every, "every", 0, "seconds from message to message")
	set.BoolVar(&o.reverse, "reverse", false, "the server sends")
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
	set.BoolVar(&o.acknodelay, "acknodelay", false, "send every ack at once")
	set.IntVar(&o.sockbuf, "sockbuf", 4<<20, "kernel buffers of the UDP socket in bytes")
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return o, nil
}

func (o *options) address() string {
	return net.JoinHostPort(o.host, strconv.Itoa(o.port))
}

// cipherNamed is a cipher: how much of the derived key it takes, and its constructor.
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

// block makes the cipher that the options name; "null" is kcp-go's nil block.
func (o *options) block() (kcp.BlockCrypt, error) {
	if o.crypt == "null" {
		return nil, nil
	}
	named, known := ciphers[o.crypt]
	if !known {
		return nil, fmt.Errorf("-crypt %q: unknown", o.crypt)
	}
	key, err := pbkdf2.Key(sha1.New, o.key, []byte("kcp-go"), 4096, 32)
	if err != nil {
		return nil, err
	}
	return named.construct(key[:named.keyLength])
}

// tune applies the options to a session, dialled or accepted.
func (o *options) tune(session *kcp.UDPSession) error {
	session.SetStreamMode(true)
	session.SetWriteDelay(false)
	session.SetNoDelay(o.nodelay, o.interval, o.resend, o.nc)
	session.SetWindowSize(o.sndwnd, o.rcvwnd)
	session.SetACKNoDelay(o.acknodelay)
	if !session.SetMtu(o.mtu) {
		return fmt.Errorf("-mtu %d: kcp-go refuses it", o.mtu)
	}
	return nil
}

// dial makes a session to the server.
func (o *options) dial() (*kcp.UDPSession, error) {
	block, err := o.block()
	if err != nil {
		return nil, err
	}
	session, err := kcp.DialWithOptions(o.address(), block, o.datashard, o.parityshard)
	if err != nil {
		return nil, err
	}
	if err := session.SetReadBuffer(o.sockbuf); err != nil {
		return nil, err
	}
	if err := session.SetWriteBuffer(o.sockbuf); err != nil {
		return nil, err
	}
	return session, o.tune(session)
}
