// A small chart of the last 15 minutes. All charts share one cursor: pointing at one shows the same moment in each.
import { Component, html } from './view.js';

const scheme = matchMedia('(prefers-color-scheme: dark)');

// ink resolves a colour of the style sheet to what a canvas understands.
function ink(el, variable, alpha) {
  const before = el.style.color;
  el.style.color = alpha ? `color-mix(in srgb, var(${variable}) ${alpha}%, transparent)` : `var(${variable})`;
  const c = getComputedStyle(el).color;
  el.style.color = before;
  return c;
}

// Until 15 minutes are known, what is known fills the width; it is never stretched from less than this.
const leastSpan = 60;

// Chart draws series over times. series: [{colour: '--name', kind: 'line'|'area'|'bars'}], data: [times, values…]; onPoint(index or null).
export class Chart extends Component {
  componentDidMount() {
    this.build();
    this.size = new ResizeObserver(() => this.fit());
    this.size.observe(this.el);
    this.repaint = () => { this.plot?.destroy(); this.build(); };
    scheme.addEventListener('change', this.repaint);
  }
  componentWillUnmount() {
    this.size.disconnect();
    scheme.removeEventListener('change', this.repaint);
    this.plot?.destroy();
  }
  shouldComponentUpdate(next) {
    if (next.data !== this.props.data && this.plot) {
      this.until = next.until;
      this.plot.setData(next.data);
    }
    return false;
  }
  fit() {
    const width = Math.floor(this.el.clientWidth);
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.props.height });
  }
  build() {
    const { series, data, height, span, until, floor, log } = this.props;
    const uPlot = globalThis.uPlot;
    if (!uPlot) return;
    this.until = until;
    const bars = uPlot.paths.bars({ size: [0.8, 12, 1] });
    const lines = series.map((s) => ({
      stroke: ink(this.el, s.colour), width: s.kind === 'bars' ? 0 : 1.5, points: { show: false }, spanGaps: false,
      dash: s.dash, fill: s.kind === 'line' ? undefined : ink(this.el, s.colour, s.kind === 'bars' ? 80 : 18),
      paths: s.kind === 'bars' ? bars : undefined,
    }));
    this.plot = new uPlot({
      width: Math.max(20, Math.floor(this.el.clientWidth)), height, padding: [3, 0, 0, 0], legend: { show: false },
      cursor: {
        x: true, y: false, drag: { setScale: false, x: false, y: false }, sync: { key: 'history' }, points: { size: 5 },
      },
      select: { show: false },
      axes: [{ show: false }, { show: false }],
      scales: {
        x: { time: false, range: (u) => [Math.max(this.until - span, Math.min(u.data[0][0] ?? this.until, this.until - leastSpan)), this.until] },
        y: log ? { distr: 3, range: (_, min, max) => [Math.max(0.01, (min || 1) * 0.4), Math.max(0.1, (max || 1) * 1.3)] }
          : { range: (_, __, max) => [0, Math.max(floor || 1, (max || 0) * 1.08)] },
      },
      series: [{}, ...lines],
      hooks: { setCursor: [(u) => this.props.onPoint(u.cursor.idx ?? null)] },
    }, data, this.el);
  }
  render() {
    return html`<div class="chart" aria-hidden="true" ref=${(el) => { if (el) this.el = el; }}></div>`;
  }
}
