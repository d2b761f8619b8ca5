// The verdict and the big numbers.
import { Component, Pure, Command, html } from './view.js';
import { Chart } from './chart.js';
import { bytes, bytesText, cores, coresText, count, inUnit, ms, rate, share, span } from './format.js';

const marks = { ok: 'M3 8.5l3.2 3.2L13 5', idle: 'M4 8h8', warn: 'M8 3v6.2M8 12v1', bad: 'M4 4l8 8M12 4l-8 8' };
const words = { ok: 'Well', idle: 'Idle', warn: 'Warning', bad: 'Problem' };

const Mark = ({ level }) => html`<svg class="mark" viewBox="0 0 16 16" role="img" aria-label=${words[level] || level}>
  <path d=${marks[level] || marks.idle} /></svg>`;

export class VerdictLine extends Pure {
  render({ verdict, problems, notices }) {
    const rest = problems.slice(1);
    return html`<section class=${'verdict ' + verdict.level} aria-label="Verdict">
      <p class="line" role="status"><${Mark} level=${verdict.level} /><strong>${verdict.text}</strong></p>
      ${verdict.command && verdict.level !== 'ok' && html`<${Command} text=${verdict.command} />`}
      ${rest.length > 0 && html`<details class="more"><summary>${rest.length} more</summary>
        <ul>${rest.map((p) => html`<li key=${p.text} class=${p.level}><${Mark} level=${p.level} /><span>${p.text}</span>
          ${p.command && html`<${Command} text=${p.command} />`}</li>`)}</ul></details>`}
      ${notices.map((n) => html`<p key=${n} class="notice">${n}</p>`)}
    </section>`;
  }
}

const cards = [
  {
    id: 'rps', title: 'Requests', tip: 'per second, over the last 10 seconds', columns: ['rps'], series: [{ colour: '--line', kind: 'area' }],
    big: (t) => [[rate(t.rps), '/s']], sub: (t) => `${count(t.requests)} in 15 min${t.without ? ` · without ${t.without.join(', ')}` : ''}`,
    at: (p) => [[rate(p.rps), '/s']],
  },
  {
    id: 'latency', title: 'Latency p50 / p99', tip: 'of the last minute: the median of all functions by their rate, and the p99 of the worst function', columns: ['p50Ms', 'p99Ms'], gaps: true, log: true,
    series: [{ colour: '--line', kind: 'line' }, { colour: '--line2', kind: 'line' }],
    big: (t) => pair(t.p50Ms, t.p99Ms), sub: (t) => (t.p99Function ? `worst: ${t.p99Function}` : 'idle for a minute'),
    at: (p) => pair(p.p50Ms, p.p99Ms),
  },
  {
    id: 'errors', title: 'Errors', tip: 'share of the requests of the last minute', columns: ['errorsPerSecond'], series: [{ colour: '--bad', kind: 'area' }], floor: 0.5,
    big: (t) => [[share(t.errorShare).replace(' %', ''), '%']], sub: (t) => `${count(t.errors)} in 15 min`,
    at: (p) => [[rate(p.errorsPerSecond), '/s']], loud: (t) => t.errorShare >= 0.01,
  },
  {
    id: 'cold', title: 'Cold starts', tip: 'invocations that waited for an instance to start', columns: ['coldStarts'], series: [{ colour: '--cold', kind: 'bars' }], floor: 3,
    big: (t) => [[count(t.coldStarts), 'in 15 min']],
    sub: (t) => (t.requests ? `${share(t.coldStarts / t.requests)} of requests` : 'no requests'),
    at: (p) => [[count(p.coldStarts), 'in 5 s']],
  },
  {
    id: 'queue', title: 'Queued', tip: 'invocations that wait in the queue for their time or for a slot', columns: ['queued'], series: [{ colour: '--line', kind: 'area' }], floor: 3,
    big: (t) => [[count(t.queued), '']],
    sub: (t, now) => [t.oldest ? `oldest ${span(now - Date.parse(t.oldest))}` : 'none waits', t.dead && `${count(t.dead)} dead`].filter(Boolean).join(' · '),
    at: (p) => [[count(p.queued), '']],
  },
  {
    id: 'cpu', title: 'CPU used', tip: 'by everything on the nodes; the dashed line is what instances reserve', columns: ['cpuUsed', 'cpuReserved'], total: (t) => t.cpu.capacity,
    series: [{ colour: '--line', kind: 'area' }, { colour: '--muted', kind: 'line', dash: [3, 3] }],
    big: (t) => [[cores(t.cpu.used), `of ${cores(t.cpu.capacity)} cores`]], sub: (t) => `${coresText(t.cpu.reserved)} reserved`,
    at: (p) => [[cores(p.cpuUsed), 'cores']],
  },
  {
    id: 'memory', title: 'Memory used', tip: 'by everything on the nodes; the dashed line is what instances reserve', columns: ['memoryUsed', 'memoryReserved'], total: (t) => t.memory.capacity,
    series: [{ colour: '--line', kind: 'area' }, { colour: '--muted', kind: 'line', dash: [3, 3] }],
    big: (t) => [[inUnit(t.memory.used, t.memory.capacity), 'of ' + bytesText(t.memory.capacity)]],
    sub: (t) => `${bytesText(t.memory.reserved)} reserved`,
    at: (p) => [[...bytes(p.memoryUsed)]],
  },
];

function pair(a, b) {
  const [x, ux] = ms(a);
  const [y, uy] = ms(b);
  return [[x, ux === uy ? '' : ux], ['/ ' + y, uy]];
}

class Card extends Component {
  onPoint = (i) => { if (i !== this.state.i) this.setState({ i }); };
  data() {
    const { card, state } = this.props;
    if (this.points !== state.points) {
      this.points = state.points;
      const at = card.columns.map((c) => state.columns[c]);
      const value = card.gaps ? (v) => v || null : (v) => v;
      this.cache = [state.points.map((p) => p[0]), ...at.map((c) => state.points.map((p) => value(p[c])))];
    }
    return this.cache;
  }
  render({ card, state, now }, { i }) {
    const t = state.totals;
    const point = i != null && state.points[i];
    const figures = point ? card.at(Object.fromEntries(Object.entries(state.columns).map(([c, n]) => [c, point[n]]))) : card.big(t);
    const until = Math.floor(state.at / 1000);
    return html`<div class=${'card' + (card.loud?.(t) ? ' loud' : '')} data-card=${card.id}>
      <dt title=${card.tip}>${card.title}</dt>
      <dd class="figure">${figures.map(([v, unit]) => html`<b>${v}</b>${unit && html`<i>${unit}</i>`} `)}</dd>
      <dd class="sub">${point ? span(now - point[0] * 1000) + ' ago' : card.sub(t, now)}</dd>
      <${Chart} series=${card.series} data=${this.data()} until=${until} span=${state.step * state.limit} height=${40}
        floor=${card.total ? card.total(t) : card.floor} log=${card.log} onPoint=${this.onPoint} />
    </div>`;
  }
}

export const Strip = ({ state, now }) => html`<dl class="strip" aria-label="Figures, with the last 15 minutes">
  ${cards.map((card) => html`<${Card} key=${card.id} card=${card} state=${state} now=${now} />`)}</dl>`;
