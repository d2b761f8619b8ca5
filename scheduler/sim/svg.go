package sim

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Curve is a policy's result with its name.
type Curve struct {
	Name   string
	Result *Result
}

// The drawing's measures, in pixels.
const (
	svgWidth, svgPanel, svgLeft, svgTop, svgGap = 900, 190, 70, 30, 50
)

var svgColours = []string{"#1f6f8b", "#c8553d", "#588157", "#8e6c8a"}

// Draw writes an SVG with one panel for each of the curves over time: cold starts, idle memory, and nodes where they are known.
func Draw(w io.Writer, curves []Curve) error {
	panels := []struct {
		title string
		of    func(p *Point) float64
	}{
		{"cold starts, % of the hour's invocations", func(p *Point) float64 { return 100 * float64(p.Cold) / float64(max(p.Invocations, 1)) }},
		{"idle memory, GiB", func(p *Point) float64 { return p.Idle }},
		{"nodes used", func(p *Point) float64 { return float64(p.Nodes) }},
	}
	var b strings.Builder
	height := svgTop + len(panels)*(svgPanel+svgGap)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", svgWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", svgWidth, height)
	for i, c := range curves {
		fmt.Fprintf(&b, `<text x="%d" y="18" fill="%s">%s</text>`+"\n", svgLeft+i*200, svgColours[i%len(svgColours)], html.EscapeString(c.Name))
	}
	for i, p := range panels {
		panel(&b, svgTop+i*(svgPanel+svgGap), p.title, curves, p.of)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func panel(b *strings.Builder, top int, title string, curves []Curve, of func(p *Point) float64) {
	most, hours := 0.0, 1
	for _, c := range curves {
		for i := range c.Result.Series {
			most = max(most, of(&c.Result.Series[i]))
			hours = max(hours, c.Result.Series[i].Hour)
		}
	}
	if most == 0 {
		most = 1
	}
	bottom, wide := top+20+svgPanel, float64(svgWidth-svgLeft-20)
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", svgLeft, top+14, title)
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="#888"/>`+"\n", svgLeft, top+20, bottom, svgWidth-20)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%.4g</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n", svgLeft-6, top+28, most, svgLeft-6, bottom)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%d h</text>`+"\n", svgWidth-20, bottom+16, hours)
	for i, c := range curves {
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.3" points="`, svgColours[i%len(svgColours)])
		for k := range c.Result.Series {
			p := &c.Result.Series[k]
			x := svgLeft + wide*float64(p.Hour)/float64(hours)
			y := float64(bottom) - svgPanel*of(p)/most
			fmt.Fprintf(b, "%.1f,%.1f ", x, math.Round(10*y)/10)
		}
		b.WriteString(`"/>` + "\n")
	}
}
