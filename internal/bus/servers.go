package bus

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// ServerInfo is what a server of a cluster tells of itself.
type ServerInfo struct {
	// Name is its machine's, for people.
	Name string `json:"name,omitempty"`
	// Peer is which of the peers it is, Clients where workers and callers connect, a URL.
	Peer    string `json:"peer"`
	Clients string `json:"clients,omitempty"`
	// Public is where it serves functions, a URL.
	Public  string    `json:"public,omitempty"`
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

// ServerView is a server of the cluster as this one sees it.
type ServerView struct {
	ServerInfo
	// Server is its name in certificates and logs; empty where it was not heard since this one runs.
	Server string
	// Up says that it is heard, Heard is when it last was; zero: never.
	Up    bool
	Heard time.Time
	// Misses are the names, for people, of servers that this one hears and it does not.
	Misses []string
}

// about is what this server tells of itself.
func (b *Bus) about() ServerInfo {
	out := b.cfg.Cluster.About
	out.Peer, out.Clients, out.Started = b.cfg.Cluster.Listen, b.ListenURL(), time.Now().UTC().Truncate(time.Second)
	return out
}

// Servers lists the servers of the cluster in the order of its peers, as this one sees them; none where it stands alone.
func (b *Bus) Servers() []ServerView {
	if b.sight == nil {
		return nil
	}
	return b.sight.servers(time.Now(), b.cfg.Cluster.Peers)
}

// JoinURL is what workers are given to join: every server that this one knows, itself first; "" where none may.
func (b *Bus) JoinURL() string {
	out := []string{b.ListenURL()}
	for _, s := range b.Servers() {
		if s.Clients != "" && !slices.Contains(out, s.Clients) {
			out = append(out, s.Clients)
		}
	}
	return strings.Join(out, ",")
}

// introduce has the others told what this server is.
func (s *sight) introduce(about ServerInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.about = &about
}

// servers is described with Bus.Servers.
func (s *sight) servers(now time.Time, peers []string) []ServerView {
	s.mu.Lock()
	defer s.mu.Unlock()
	var known []ServerView
	add := func(server string, about *ServerInfo, heard time.Time, up bool) {
		v := ServerView{Server: server, Heard: heard, Up: up}
		if about != nil {
			v.ServerInfo = *about
		}
		v.Name = cmp.Or(v.Name, server)
		known = append(known, v)
	}
	add(s.server, s.about, now, true)
	for name, h := range s.others {
		add(name, h.About, h.at, now.Sub(h.at) < missedFor)
	}
	out := make([]ServerView, 0, len(peers))
	for _, peer := range peers {
		// A machine that began anew on another directory has another name: who was heard last is meant.
		v := ServerView{ServerInfo: ServerInfo{Name: peer, Peer: peer}}
		for _, k := range known {
			if k.Peer == peer && k.Heard.After(v.Heard) {
				v = k
			}
		}
		out = append(out, v)
	}
	for i := range out {
		for _, other := range out {
			if s.misses(out[i], other, now) {
				out[i].Misses = append(out[i].Misses, other.Name)
			}
		}
	}
	return out
}

// misses reports whether a server does not hear another one that this one hears; s.mu is held. Whoever has only just come needs a moment.
func (s *sight) misses(v, other ServerView, now time.Time) bool {
	if !v.Up || !other.Up || v.Server == s.server || other.Server == v.Server {
		return false
	}
	h, o := s.others[v.Server], s.others[other.Server]
	settled := now.Sub(h.since) >= missedFor && (other.Server == s.server || now.Sub(o.since) >= missedFor)
	return settled && !slices.Contains(h.Hears, other.Server)
}
