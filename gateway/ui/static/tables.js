// The functions, the queues and the quotas.
import { Component, Pure, Command, html } from './view.js';
import { cmp, functionKey } from './store.js';
import { bytesText, cores, coresText, count, msText, name, plural, rate, share, sinceOf, span, word } from './format.js';

export class Spark extends Pure {
  render({ values }) {
    if (!values?.length) return null;
    const top = Math.max(...values, 0.01);
    const step = 64 / (values.length - 1);
    const points = values.map((v, k) => `${(k * step).toFixed(1)},${(17 - (15 * v) / top).toFixed(1)}`).join(' ');
    return html`<svg class="spark" viewBox="0 0 64 18" aria-hidden="true"><polyline points=${points} /></svg>`;
  }
}

const columns = [
  { id: 'name', title: 'Function', value: (f) => name(f), text: true },
  { id: 'rps', title: 'Req/s', value: (f) => f.rps },
  { id: 'p50', title: 'p50', value: (f) => f.p50Ms, tip: 'median of the last minute' },
  { id: 'p99', title: 'p99', value: (f) => f.p99Ms, tip: 'of the last minute' },
  { id: 'errors', title: 'Errors', value: (f) => f.errors, tip: 'in the last 15 minutes; in brackets the share in the last minute' },
  { id: 'cold', title: 'Cold', value: (f) => f.coldStarts, tip: 'invocations of the last 15 minutes that waited for a start' },
  { id: 'instances', title: 'Instances', value: (f) => f.ready + f.starting, tip: 'ready; + starting, − draining' },
  { id: 'inFlight', title: 'In flight', value: (f) => f.inFlight },
  { id: 'waiting', title: 'Waiting', value: (f) => f.waiting, tip: 'invocations without a free slot' },
  { id: 'queue', title: 'Queue', value: (f) => f.queue.pending + f.queue.scheduled, tip: 'pending and scheduled' },
  { id: 'dead', title: 'Dead', value: (f) => f.queue.dead, tip: 'dead letters' },
];

const zero = (v, text) => (v ? text ?? count(v) : html`<span class="zero">0</span>`);

// Cell is a figure under a heading that narrow screens write beside it. There, zeros that say nothing are left out.
const Cell = ({ of, quiet, alarm, children }) => html`<td data-label=${of} class=${(quiet ? 'quiet ' : '') + (alarm || '')}>${children}</td>`;

class Row extends Pure {
  toggle = () => this.props.onToggle(this.props.id);
  over = () => this.props.onHot(this.props.id);
  render({ f, colour, open, hot, id }) {
    const queued = f.queue.pending + f.queue.scheduled;
    return html`<tr class=${(hot ? 'hot ' : '') + (f.pending ? 'pending' : '')} data-function=${id} onMouseEnter=${this.over} onClick=${this.toggle}>
      <th scope="row"><button type="button" class="name" title=${name(f)} aria-expanded=${open ? 'true' : 'false'}><span class=${'swatch c' + colour} aria-hidden="true"></span><span class="fn">${f.function}</span>
        ${f.namespace !== 'default' && html`<span class="ns">.${f.namespace}</span>`}</button></th>
      <td class="rate"><${Spark} values=${f.spark} /><span class="number">${f.rps ? rate(f.rps) : html`<span class="zero">0</span>`}</span></td>
      <${Cell} of="p50" quiet=${!f.p50Ms}>${msText(f.p50Ms)}<//><${Cell} of="p99" quiet=${!f.p99Ms}>${msText(f.p99Ms)}<//>
      <${Cell} of="errors" quiet=${!f.errors} alarm=${f.errorShare >= 0.05 ? 'alarm' : ''}>${zero(f.errors)}${f.errorShare > 0 && html` <small>(${share(f.errorShare)})</small>`}<//>
      <${Cell} of="cold" quiet=${!f.coldStarts}>${zero(f.coldStarts)}<//>
      <${Cell} of="instances">${f.ready || f.starting || f.draining ? f.ready : html`<span class="zero" title="scaled to zero">0</span>`}
        ${f.starting > 0 && html` <small title="starting">+${f.starting}<span class="sr"> starting</span></small>`}
        ${f.draining > 0 && html` <small title="draining">−${f.draining}<span class="sr"> draining</span></small>`}<//>
      <${Cell} of="in flight" quiet=${!f.inFlight}>${zero(f.inFlight)}<//><${Cell} of="waiting" quiet=${!f.waiting} alarm=${f.waiting ? 'notable' : ''}>${zero(f.waiting)}<//>
      <${Cell} of="queued" quiet=${!queued}>${zero(queued)}<//><${Cell} of="dead" quiet=${!f.queue.dead} alarm=${f.queue.dead ? 'alarm' : ''}>${zero(f.queue.dead)}<//></tr>`;
  }
}

const mostListed = 8;

// Copies lists a function's instances with what the tiles cannot say.
const Copies = ({ f, state, now }) => {
  const all = [...state.instances.values()].filter((i) => i.function === f.function && i.namespace === f.namespace)
    .sort((a, b) => cmp(a.since, b.since) || cmp(a.id, b.id));
  if (all.length === 0) return html`<p class="quietly">No instance: scaled to zero. The next invocation starts one.</p>`;
  return html`<table class="copies stack"><thead><tr><th scope="col" class="text">Instance</th><th scope="col" class="text">State</th><th scope="col" class="text">Node</th><th scope="col">Slots held</th>
      <th scope="col">Memory</th><th scope="col">CPU</th><th scope="col" title="from the demand to the first readiness">Start took</th></tr></thead>
    <tbody>${all.slice(0, mostListed).map((i) => html`<tr key=${i.id}><th scope="row"><code>${i.id}</code></th>
      <td class="text">${sinceOf(i, now)}${i.adopted && ', adopted'}</td><td class="text" data-label="on">${state.nodes.get(i.node)?.name ?? i.node}</td>
      <td data-label="slots">${i.held} of ${i.slots}</td><td data-label="memory">${bytesText(i.memoryUsed)}</td>
      <td data-label="cpu">${coresText(i.cpuUsed)}</td><td data-label="start">${msText(i.startMs)}</td></tr>`)}</tbody></table>
    ${all.length > mostListed && html`<p class="quietly">and ${all.length - mostListed} more</p>`}`;
};

const Detail = ({ f, state, now }) => {
  const fn = word(name(f));
  return html`<tr class="detail"><td colspan=${columns.length}><div class="inner">
    <dl><dt>Wanted</dt><dd>${plural(f.desired, 'instance')}${f.reason && ': ' + f.reason}</dd>
      ${f.pending && html`<dt>Pending</dt><dd class="alarm">${f.pending}</dd>`}
      <dt>15 minutes</dt><dd>${plural(f.requests, 'request')}, ${plural(f.errors, 'error')}, ${plural(f.coldStarts, 'cold start')}${f.requests > 0 && ` (${share(f.coldStarts / f.requests)})`}</dd>
      ${f.startFailures > 0 && html`<dt>Failed starts</dt><dd>${count(f.startFailures)}</dd>`}
      <dt>Queue</dt><dd>${count(f.queue.pending)} pending, ${count(f.queue.scheduled)} scheduled, ${count(f.queue.running)} running, ${count(f.queue.dead)} dead</dd></dl>
    <${Copies} f=${f} state=${state} now=${now} />
    <p class="commands">${['explain', 'logs', 'invoke', 'fn show', 'inst ls', 'queue show'].map((verb) => html`<${Command} text=${`tatami ${verb} ${fn}`} />`)}</p></div></td></tr>`;
};

// With so few functions there is nothing to filter.
const fewFunctions = 5;

export class Functions extends Component {
  state = { by: 'name', down: false, open: null };
  toggle = (key) => this.setState((s) => ({ open: s.open === key ? null : key }));
  hold = () => { this.held = true; };
  release = () => { this.held = false; this.props.onHot(null); };
  sort(id) { this.order = null; this.setState((s) => ({ by: id, down: s.by === id ? !s.down : id !== 'name' })); }

  // Rows do not change places under the pointer: the order is taken anew when it has left the table.
  ordered(list) {
    const { by, down } = this.state;
    if (this.held && this.order) {
      const place = new Map(this.order.map((k, n) => [k, n]));
      return list.slice().sort((a, b) => (place.get(functionKey(a)) ?? 1e9) - (place.get(functionKey(b)) ?? 1e9));
    }
    const value = columns.find((c) => c.id === by).value;
    const sorted = list.slice().sort((a, b) => (down ? -1 : 1) * cmp(value(a), value(b)) || cmp(name(a), name(b)));
    this.order = sorted.map(functionKey);
    return sorted;
  }

  render({ state, now, filter, onFilter, hot, onHot, search }, { by, down, open }) {
    const wanted = filter.trim().toLowerCase();
    const shown = state.functionList.filter((f) => !wanted || name(f).toLowerCase().includes(wanted));
    return html`<section class="panel functions" aria-labelledby="functions-title">
      <header><h2 id="functions-title">Functions</h2>
        ${(state.functionList.length > fewFunctions || filter) && html`<label class="filter"><span class="sr">Filter functions by name</span>
          <input type="search" placeholder="Filter ( / )" value=${filter} onInput=${(e) => onFilter(e.target.value)} ref=${search} spellcheck=${false} autocomplete="off" /></label>`}
        <span class="many" role="status">${wanted ? `${shown.length} of ${state.functionList.length}` : ''}</span>
        <${Command} text="tatami fn ls" /></header>
      <div class="scroll" role="group" aria-labelledby="functions-title" tabindex="0">
        <table class="stack" onMouseEnter=${this.hold} onMouseLeave=${this.release}>
          <thead><tr>${columns.map((c) => html`<th scope="col" key=${c.id} class=${c.text ? 'text' : ''} aria-sort=${by === c.id ? (down ? 'descending' : 'ascending') : undefined}>
            <button type="button" title=${c.tip || ''} onClick=${() => this.sort(c.id)}><span class="arrow" aria-hidden="true">${by === c.id ? (down ? '▾' : '▴') : ''}</span>${c.title}</button></th>`)}</tr></thead>
          <tbody>${this.ordered(shown).map((f) => {
            const key = functionKey(f);
            return [html`<${Row} key=${key} id=${key} f=${f} colour=${state.colours.of(key)} hot=${hot === key} open=${open === key} onToggle=${this.toggle} onHot=${onHot} />`,
              open === key && html`<${Detail} key=${key + ' detail'} f=${f} state=${state} now=${now} />`];
          })}</tbody></table>
        ${shown.length === 0 && html`<p class="nothing">No function's name contains “${filter}”.</p>`}</div></section>`;
  }
}

export const Queues = ({ state, now }) => {
  const rows = state.functionList.filter((f) => f.queue.pending || f.queue.scheduled || f.queue.running || f.queue.dead)
    .sort((a, b) => b.queue.pending - a.queue.pending || cmp(name(a), name(b)));
  return html`<section class="panel queues" aria-labelledby="queues-title">
    <header><h2 id="queues-title">Queues</h2><${Command} text="tatami queue ls" /></header>
    ${rows.length === 0 ? html`<p class="nothing">Nothing is queued. Hand an invocation over:<br /><code>tatami invoke NAME --async</code></p>`
      : html`<div class="scroll" role="group" aria-labelledby="queues-title" tabindex="0"><table class="stack">
        <thead><tr><th scope="col" class="text">Function</th><th scope="col" title="could run now">Pending</th><th scope="col" title="scheduled: wait for their time, retries included">Later</th>
          <th scope="col">Running</th><th scope="col">Dead</th><th scope="col" title="age of the oldest pending one">Oldest</th></tr></thead>
        <tbody>${rows.map((f) => html`<tr key=${functionKey(f)}><th scope="row" title=${name(f)}><span class=${'swatch c' + state.colours.of(functionKey(f))} aria-hidden="true"></span><span class="fn">${f.function}</span>
          ${f.namespace !== 'default' && html`<span class="ns">.${f.namespace}</span>`}</th>
          <${Cell} of="pending" quiet=${!f.queue.pending}>${zero(f.queue.pending)}<//><${Cell} of="later" quiet=${!f.queue.scheduled}>${zero(f.queue.scheduled)}<//>
          <${Cell} of="running" quiet=${!f.queue.running}>${zero(f.queue.running)}<//><${Cell} of="dead" quiet=${!f.queue.dead} alarm=${f.queue.dead ? 'alarm' : ''}>${zero(f.queue.dead)}<//>
          <${Cell} of="oldest" quiet=${!f.queue.oldest}>${f.queue.oldest ? span(now - Date.parse(f.queue.oldest)) : '–'}<//></tr>`)}</tbody></table></div>`}</section>`;
};

// What a quota bounds: its name, its use, its bound, and how both are written.
const resources = [
  ['CPU', (n) => n.used.cpuMillis, 'cpuMillis', (v) => cores(v)],
  ['Memory', (n) => n.used.memoryBytes, 'memoryBytes', bytesText],
  ['Instances', (n) => n.used.instances, 'instances', count],
  ['Functions', (n) => n.functions, 'functions', count],
  ['In flight', (n) => n.concurrent, 'concurrent', count],
  ['Req/s', (n) => n.rate, 'rate', rate],
];

const share100 = (used, bound) => Math.min(100, (100 * used) / bound).toFixed(2) + '%';

// Bound is one resource of a quota: how much of it is used, and what is left.
class Bound extends Pure {
  render({ label, used, bound, write }) {
    const text = `${write(used)} of ${write(bound)}`;
    const left = `${write(Math.max(0, bound - used))} left`;
    return html`<div class="bound"><span class="what">${label}</span>
      <div class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${bound} aria-valuenow=${Math.min(used, bound)} aria-valuetext=${`${text}, ${left}`}>
        <span class=${'used' + (used >= 0.9 * bound ? ' full' : '')} style=${{ width: share100(used, bound) }}></span></div>
      <span class="text">${text}</span><span class="left">${left}</span></div>`;
  }
}

const title = (namespace) => (namespace === '_total' ? 'all namespaces together' : namespace);

export const Quotas = ({ namespaces }) => namespaces.length > 0 && html`<section class="panel quotas" aria-labelledby="quotas-title">
  <header><h2 id="quotas-title">Quotas</h2><${Command} text="tatami quota ls" /></header>
  <ul class="budgets">${namespaces.map((n) => html`<li key=${n.namespace} data-namespace=${n.namespace}><h3>${title(n.namespace)}</h3>
    ${resources.filter(([, , bound]) => n.quota[bound] > 0).map(([label, used, bound, write]) => html`<${Bound} key=${label} label=${label} used=${used(n) || 0} bound=${n.quota[bound]} write=${write} />`)}</li>`)}</ul></section>`;
