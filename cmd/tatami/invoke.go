package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// invocation is one run of `tatami invoke`.
type invocation struct {
	ref          functions.Ref
	data         string
	hasData      bool
	method, path string
	header       []string
	base         string
	async, wait  bool
	delay        time.Duration
	include      bool
	timeout      time.Duration
}

func newInvokeCmd(a *app) *cobra.Command {
	var v invocation
	cmd := &cobra.Command{
		Use: "invoke FUNCTION", Short: "Call a function and print its answer", Args: argCount(1, 1, "FUNCTION"), ValidArgsFunction: a.completeFunctions,
		Long: "Calls a function through the public listener. The body of its answer goes to stdout, what is to say about it to stderr;\n" +
			"with -o json or yaml status, headers and body go to stdout as one object.\n" +
			"Ends with 0 for an answer below 400, with 9 for another one and where the function failed, with 7 where a time limit fired.",
		Example: "  tatami invoke hello\n  tatami invoke hello -d '{\"n\":1}'\n  tatami invoke resize -d @in.png --path '/thumb?w=200' > out.png\n" +
			"  tatami invoke report --async --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			v.ref, v.hasData = ref, cmd.Flags().Changed("data")
			ctx := cmd.Context()
			if v.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, v.timeout)
				defer cancel()
			}
			return a.invoke(ctx, v)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&v.data, "data", "d", "", "body: text, @FILE, or - for standard input")
	f.StringVarP(&v.method, "method", "X", "", "method (default GET, POST with a body)")
	f.StringVar(&v.path, "path", "/", "path below the function, with its query")
	f.StringArrayVarP(&v.header, "header", "H", nil, "header, as in 'Name: value'; may be given more than once")
	f.StringVar(&v.base, "url", os.Getenv("TATAMI_URL"), "public listener, http://HOST:PORT (default: as the server says; TATAMI_URL)")
	f.BoolVar(&v.async, "async", false, "hand over through the queue and print the invocation's id")
	f.DurationVar(&v.delay, "delay", 0, "hand over through the queue, to be started after this time")
	f.BoolVar(&v.wait, "wait", false, "with --async: wait for the result and print it")
	f.BoolVarP(&v.include, "include", "i", false, "print the status line and the headers, too")
	f.DurationVar(&v.timeout, "timeout", 0, "give up after this time (default: the function's own timeout decides)")
	return cmd
}

func (a *app) invoke(ctx context.Context, v invocation) error {
	if v.delay < 0 {
		return fault.New(fault.CodeInvalidRequest, "--delay: %s is below zero", v.delay).WithField("delay")
	}
	if v.wait || v.delay > 0 {
		v.async = true
	}
	if v.base == "" {
		base, err := a.publicURL(ctx)
		if err != nil {
			return err
		}
		v.base = base
	}
	req, err := v.request(ctx, a.stdin)
	if err != nil {
		return err
	}
	hc := plainClient()
	defer hc.CloseIdleConnections()
	begun := time.Now()
	resp, err := hc.Do(req)
	if err != nil {
		return v.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if v.async {
		return a.accepted(ctx, hc, v, resp)
	}
	return a.answered(ctx, v, resp, begun)
}

// plainClient passes answers on as they are: redirects and compressed bodies included.
func plainClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// publicURL asks the server where functions are called.
func (a *app) publicURL(ctx context.Context) (string, error) {
	c, err := a.connect()
	if err != nil {
		return "", err
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	if s.PublicURL == "" {
		return "", fault.New(fault.CodeUnavailable, "the server has no public listener").WithHint("give its address with --url")
	}
	return s.PublicURL, nil
}

func (v *invocation) request(ctx context.Context, stdin io.Reader) (*http.Request, error) {
	if u, err := url.Parse(v.base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.CodeInvalidRequest, "%q is no address of a public listener", v.base).WithField("url").
			WithHint("write http://HOST:PORT or https://HOST:PORT")
	}
	path := escape(v.path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	body, length, mediaType, err := v.body(ctx, stdin)
	if err != nil {
		return nil, err
	}
	method := v.method
	switch {
	case method != "":
	case v.hasData || v.async:
		method = http.MethodPost
	default:
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(v.base, "/")+"/fn/"+v.ref.String()+path, body)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "no request can be made of it").WithHint("tatami invoke --help")
	}
	req.ContentLength = length
	req.Header.Set("User-Agent", "tatami/"+buildVersion().Version)
	for _, h := range v.header {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fault.New(fault.CodeInvalidRequest, "%q is no header", h).WithField("header").WithHint("write -H 'Name: value'")
		}
		if name, value = strings.TrimSpace(name), strings.TrimSpace(value); strings.EqualFold(name, "Host") {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	if mediaType != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if v.async {
		req.Header.Add("Prefer", "respond-async")
		if v.delay > 0 {
			req.Header.Set("Tatami-Delay", v.delay.String())
		}
	}
	return req, nil
}

// escape writes what cannot stand in a URL as it is with percent signs, and leaves those that are there.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '#' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// body returns what --data names, its length (-1 where it is not known) and what it seems to be.
func (v *invocation) body(ctx context.Context, stdin io.Reader) (io.Reader, int64, string, error) {
	switch {
	case !v.hasData:
		return nil, 0, "", nil
	case v.data == "-", v.data == "@-":
		return endsWith(ctx, stdin), -1, "application/octet-stream", nil
	case strings.HasPrefix(v.data, "@"):
		name := v.data[1:]
		f, err := os.Open(name)
		if err != nil {
			return nil, 0, "", pathFault(name, err).WithField("data").WithHint("write -d @FILE with a file that exists; text that begins with @ goes through -d -")
		}
		info, err := f.Stat()
		if err != nil || info.IsDir() {
			_ = f.Close()
			return nil, 0, "", fault.New(fault.CodeInvalidRequest, "%s is no file", name).WithField("data").WithHint("write -d @FILE")
		}
		length := info.Size()
		if !info.Mode().IsRegular() {
			length = -1
		}
		t := mime.TypeByExtension(filepath.Ext(name))
		if t == "" {
			t = "application/octet-stream"
		}
		return f, length, t, nil // the transport closes it
	}
	t := "text/plain; charset=utf-8"
	if json.Valid([]byte(v.data)) {
		t = "application/json"
	}
	return strings.NewReader(v.data), int64(len(v.data)), t, nil
}

func (v *invocation) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.CodeWaitTimeout, "no answer from %s within %s", v.ref, functions.Duration(v.timeout)).WithHint("tatami explain %s", v.ref)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	e := fault.Wrap(fault.CodeUnavailable, err, "cannot call %s at %s", v.ref, v.base)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return e.WithHint("see `tatami status` for where the public listener is, or name another one with --url")
	}
	return e
}

// answered prints a function's answer, or fails with the platform's.
func (a *app) answered(ctx context.Context, v invocation, resp *http.Response, begun time.Time) error {
	if v.include && !a.machine() {
		a.printHead(resp)
	}
	if resp.Header.Get(problem.HeaderError) != "" {
		return client.FaultOf(resp)
	}
	out, whole := a.stdout, &bytes.Buffer{}
	if a.machine() {
		out = whole
	}
	n, err := io.Copy(out, resp.Body)
	took := time.Since(begun)
	if err != nil && n > 0 && !a.machine() {
		a.afterBody()
	}
	switch {
	case errors.Is(err, syscall.EPIPE):
		return nil // `| head` has enough
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fault.New(fault.CodeWaitTimeout, "the answer of %s did not end within %s", v.ref, functions.Duration(v.timeout))
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fault.Wrap(fault.CodeFunctionBadResponse, err, "the answer of %s broke off", v.ref).WithHint("tatami logs %s", v.ref)
	}
	if a.machine() {
		if err := a.encode(answerOf(resp, whole.Bytes(), took)); err != nil {
			return err
		}
	} else {
		a.afterBody()
	}
	a.talk("%s\n", a.paint(a.errTTY, dim, clean(outcome(v.ref, resp, took))))
	if resp.StatusCode >= http.StatusBadRequest {
		return exitError(fault.FunctionFailed.Exit())
	}
	return nil
}

// endsWith reads from r until ctx ends: a request waits for the end of its body, and nothing can end a read of standard input.
func endsWith(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		_ = in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { _ = in.CloseWithError(ctx.Err()) })
	return out
}

// answer is what a program reads of a function's answer, in the words of a result.
type answer struct {
	ID     functions.InvocationID `json:"id,omitempty"`
	Status int                    `json:"status"`
	Header map[string][]string    `json:"headers"`
	Body   string                 `json:"body"`
	// Encoding is "utf-8" or "base64".
	Encoding string             `json:"encoding"`
	Took     functions.Duration `json:"took"`
}

func answerOf(resp *http.Response, body []byte, took time.Duration) answer {
	out := answer{
		ID: functions.InvocationID(resp.Header.Get("Tatami-Invocation-Id")), Status: resp.StatusCode, Header: resp.Header,
		Body: string(body), Encoding: "utf-8", Took: functions.Duration(took.Round(time.Microsecond)),
	}
	if !utf8.Valid(body) {
		out.Body, out.Encoding = base64.StdEncoding.EncodeToString(body), "base64"
	}
	return out
}

// afterBody begins a new line where a body that did not is on the same terminal as what follows.
func (a *app) afterBody() {
	if a.outTTY && a.errTTY && !a.quiet {
		a.say("\n")
	}
}

// outcome is a line about an answer: status, time, and where the time of a cold start went.
func outcome(ref functions.Ref, resp *http.Response, took time.Duration) string {
	phases := timings(resp.Header.Get("Server-Timing"))
	s := fmt.Sprintf("%s · %s · %s", ref, resp.Status, brief(took))
	cold := slices.ContainsFunc(phases, func(p timing) bool { return p.name == "create" || p.name == "start" || p.name == "ready" })
	switch {
	case cold:
		s += " · cold:"
		for _, p := range phases {
			s += " " + p.name + " " + brief(p.took)
		}
	case len(phases) > 0:
		s += " · warm"
	}
	if id := resp.Header.Get("Tatami-Invocation-Id"); id != "" {
		s += " · " + id
	}
	return s
}

type timing struct {
	name string
	took time.Duration
}

// timings reads a Server-Timing header.
func timings(h string) []timing {
	var out []timing
	for part := range strings.SplitSeq(h, ",") {
		name, dur, ok := strings.Cut(strings.TrimSpace(part), ";dur=")
		if d, err := time.ParseDuration(dur + "ms"); ok && err == nil {
			out = append(out, timing{name, d})
		}
	}
	return out
}

func (a *app) printHead(resp *http.Response) {
	a.print("%s %s\r\n", resp.Proto, resp.Status)
	_ = resp.Header.Write(a.stdout)
	a.print("\r\n")
}
