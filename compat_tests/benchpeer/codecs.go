package main

import (
	"crypto/aes"
	"crypto/cipher"
	"slices"
	"time"

	"github.com/klauspost/reedsolomon"
)

const (
	packetLength = 1400 // bytes: an MTU's worth, headers included
	trial        = 200 * time.Millisecond
	trials       = 3
)

// speed calls work, which handles so many bytes, over and over; MB/s, the median of a few trials.
func speed(bytes int, work func()) float64 {
	results := make([]float64, trials)
	for i := range results {
		begin, rounds := time.Now(), 0
		for time.Since(begin) < trial {
			for range 64 {
				work()
			}
			rounds += 64
		}
		results[i] = float64(rounds*bytes) / 1e6 / time.Since(begin).Seconds()
	}
	slices.Sort(results)
	return results[trials/2]
}

// gcmSpeed is AES-GCM as kcp-go's sessions use it: the standard library's, in place, a nonce for each packet.
func gcmSpeed() (object, error) {
	block, err := aes.NewCipher(noise(16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	nonce, packet := noise(aead.NonceSize()), noise(packetLength)
	sealed := aead.Seal(nil, nonce, packet, nil)
	opened := make([]byte, 0, packetLength)
	return object{
		"seal": speed(packetLength, func() { aead.Seal(packet[:0], nonce, packet[:packetLength-aead.Overhead()], nil) }),
		"open": speed(packetLength, func() { _, err = aead.Open(opened, nonce, sealed, nil) }),
	}, err
}

// benchCiphers encrypts and decrypts packets, without nonce and checksum.
func benchCiphers(o *options) error {
	gcm, err := gcmSpeed()
	if err != nil {
		return err
	}
	results := object{"aes-128-gcm": gcm}
	for name := range ciphers {
		if name == "aes-128-gcm" {
			continue
		}
		named := &options{crypt: name, key: o.key}
		block, err := named.block()
		if err != nil {
			return err
		}
		packet := noise(packetLength)
		results[name] = object{
			"seal": speed(packetLength, func() { block.Encrypt(packet, packet) }),
			"open": speed(packetLength, func() { block.Decrypt(packet, packet) }),
		}
	}
	say(object{"ciphers": results})
	return nil
}

// benchErasure encodes groups of -datashard and -parityshard packets, and rebuilds as many as can be lost.
func benchErasure(o *options) error {
	codec, err := reedsolomon.New(o.datashard, o.parityshard)
	if err != nil {
		return err
	}
	shards := make([][]byte, o.datashard+o.parityshard)
	for i := range shards {
		shards[i] = noise(packetLength)
	}
	bytes := o.datashard * packetLength
	lost := min(o.datashard, o.parityshard)
	encode := speed(bytes, func() { err = codec.Encode(shards) })
	if err != nil {
		return err
	}
	rebuild := speed(bytes, func() {
		for i := range lost {
			shards[i] = shards[i][:0] // missing, and its memory used again, as kcp-go does
		}
		err = codec.ReconstructData(shards)
	})
	if err != nil {
		return err
	}
	say(object{"erasure": object{"encode": encode, "rebuild": rebuild}})
	return nil
}
