package http1

import "net/http"

const (
	// usualHeaders is how many headers have room made ahead.
	usualHeaders = 32
	// fewHeaders is what a map holds in one piece: it is read and cleared with much less work than a larger one.
	fewHeaders = 8
)

// fields is a header whose room is used again.
type fields struct {
	header http.Header
	values [usualHeaders]string
	valued int
}

func (f *fields) reset() {
	if f.header == nil {
		f.header = make(http.Header, fewHeaders)
	}
	clear(f.header)
	clear(f.values[:f.valued])
	f.valued = 0
}

func (f *fields) add(name, value string) {
	if vv, again := f.header[name]; again {
		f.header[name] = append(vv, value)
		return
	}
	if f.valued == len(f.values) {
		f.header[name] = []string{value}
		return
	}
	i := f.valued
	f.valued++
	f.values[i] = value
	// An append must not run into the next value.
	f.header[name] = f.values[i : i+1 : i+1]
}
