//go:build e2e

package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
)

// The server replaces a block's file with one that it has written anew, whose content may be on disk before its name is. What was stored in the block
// just before is there after a cut all the same, once a barrier has passed.
func TestACutAfterABlockWasReplaced(t *testing.T) {
	im := newImage(t, 64)
	log := filepath.Join(t.TempDir(), "attempts")
	b, _, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	store := func(subject string) {
		t.Helper()
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: subject, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	store("inv.hash.first")
	if err := b.Barrier(t.Context(), bus.StreamInvocations); err != nil {
		t.Fatal(err)
	}
	store("inv.hash.second")
	block := filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs", "1.blk")
	if err := replaceSynced(block); err != nil {
		t.Fatal(err)
	}
	if err := b.Barrier(t.Context(), bus.StreamInvocations); err != nil {
		t.Fatal(err)
	}
	im.crash(b)
	if b, _, err = open(t.Context(), im.dir, log); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"inv.hash.first", "inv.hash.second"} {
		if _, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject); err != nil {
			t.Errorf("%s was on disk before the cut: %v", subject, err)
		}
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A record takes the place of the last one that an older block held, whose file the server removes then, and the power goes before the new record is on
// disk: the old one is there still.
func TestACutWhenARecordReplacedTheLastOfABlock(t *testing.T) {
	for stream, subject := range map[string]func(key string) string{
		bus.StreamKeys:              bus.KeySubject,
		"KV_" + bus.BucketRevisions: func(key string) string { return "$KV." + bus.BucketRevisions + "." + key },
	} {
		t.Run(stream, func(t *testing.T) { cutWhenTheLastIsReplaced(t, stream, subject("kept"), subject("changes")) })
	}
}

// cutWhenTheLastIsReplaced has one subject's message be the only one of its block, beside many of another, and then replaced.
func cutWhenTheLastIsReplaced(t *testing.T, stream, kept, changes string) {
	im := newImage(t, 128)
	log := filepath.Join(t.TempDir(), "attempts")
	b, _, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	store := func(subject, data string) {
		t.Helper()
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: subject, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	blocks := filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", stream, "msgs")
	there := func(block string) bool {
		_, err := os.Stat(filepath.Join(blocks, block))
		return err == nil
	}
	store(kept, "old")
	for n := 0; !there("2.blk"); n++ {
		if store(changes, string(make([]byte, 10_000))); n == 10_000 {
			t.Fatal("the server has made no second block")
		}
	}
	if err := b.Barrier(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if !there("1.blk") {
		t.Fatal("the first block is gone")
	}
	if store(kept, "new"); there("1.blk") {
		t.Fatal("the server keeps a block that is empty")
	}
	if dir, err := os.Open(blocks); err != nil || dir.Sync() != nil || dir.Close() != nil {
		t.Fatal("the directory of the blocks is not synced")
	}
	im.crash(b)
	if b, _, err = open(t.Context(), im.dir, log); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(b.Conn())
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.GetLastMsgForSubject(t.Context(), kept); err != nil || string(m.Data) != "old" && string(m.Data) != "new" {
		t.Errorf("the record was on disk before the cut: %v", err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// replaceSynced replaces a file with a copy whose content, but not whose name, is on disk.
func replaceSynced(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(data))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// The server rewrites a block, and the new file's name is on disk before its content is: the messages are there all the same. With the filesystem's
// defaults this is so for a moment only, without auto_da_alloc until somebody syncs.
func TestACutAfterTheServerRewroteABlock(t *testing.T) {
	const stored, removed = 6000, 3000
	im := newImage(t, 128, "noauto_da_alloc")
	log := filepath.Join(t.TempDir(), "attempts")
	b, _, err := open(t.Context(), im.dir, log)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 1000)
	for i := range stored {
		if _, err := b.Store(t.Context(), &nats.Msg{Subject: fmt.Sprintf("inv.hash.%d", i+1), Data: body}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Barrier(t.Context(), bus.StreamInvocations); err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(im.dir, "data", "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs", "1.blk")
	before, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[int]bool{}
	for i := range stored {
		kept[i+1] = true
	}
	var after os.FileInfo
	for seq := 2; after == nil || os.SameFile(before, after); seq++ {
		if seq == removed {
			t.Fatalf("the server has not rewritten a block of %d bytes after %d messages were removed", before.Size(), removed)
		}
		if err := b.Invocations().DeleteMsg(t.Context(), uint64(seq)); err != nil {
			t.Fatal(err)
		}
		delete(kept, seq)
		if after, err = os.Stat(block); err != nil {
			t.Fatal(err)
		}
	}
	if dir, err := os.Open(filepath.Dir(block)); err != nil || dir.Sync() != nil || dir.Close() != nil {
		t.Fatal("the directory of the blocks is not synced")
	}
	im.crash(b)
	if found, err := os.Stat(block); err != nil || os.SameFile(found, before) {
		t.Logf("the block was not replaced on disk: %v", err)
	}
	if b, _, err = open(t.Context(), im.dir, log); err != nil {
		t.Fatal(err)
	}
	for seq := range kept {
		if m, err := b.Invocations().GetMsg(t.Context(), uint64(seq)); err != nil || !bytes.Equal(m.Data, body) {
			t.Errorf("message %d was on disk before the cut: %v", seq, err)
			break
		}
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
