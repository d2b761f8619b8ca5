package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
)

// figure is one measured value beside its baseline. Bench, metric and baseline are names that stay.
type figure struct {
	Bench         string   `json:"bench"`
	Metric        string   `json:"metric"`
	Value         float64  `json:"value"`
	Unit          string   `json:"unit"`
	Baseline      string   `json:"baseline"`
	BaselineValue *float64 `json:"baseline_value,omitempty"`
	Ratio         *float64 `json:"ratio,omitempty"`

	samples int
}

// beside makes a figure with its baseline. Beside nothing there is no ratio.
func beside(bench, metric, unit string, value float64, baseline string, baselineValue float64, samples int) figure {
	f := figure{bench, metric, value, unit, baseline, &baselineValue, nil, samples}
	if baselineValue != 0 {
		ratio := value / baselineValue
		f.Ratio = &ratio
	}
	return f
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// quantile returns the value at q of sorted samples.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func writeFigures(path string, figures []figure) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	for _, fig := range figures {
		if err := enc.Encode(fig); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

func printFigures(figures []figure) {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"bench", "metric", "value", "baseline", "value", "ratio", "samples"})
	for _, f := range figures {
		row := table.Row{f.Bench, f.Metric, number(f.Value, f.Unit), f.Baseline, "", "", f.samples}
		if f.BaselineValue != nil {
			row[4] = number(*f.BaselineValue, f.Unit)
		}
		if f.Ratio != nil {
			row[5] = fmt.Sprintf("%.2f", *f.Ratio)
		}
		t.AppendRow(row)
	}
	fmt.Println(t.Render())
}

func number(v float64, unit string) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	case v < 0.1:
		return fmt.Sprintf("%.3g %s", v, unit)
	default:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
}
