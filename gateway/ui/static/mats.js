// Nodes as tatami mats: a node's memory is the floor, instances are the mats that fill it.
import { Component, Pure, Command, html } from './view.js';
import { bytesOf, bytesText, cores, coresText, count, msText, plural, rate, share, sinceOf, span, stateOf } from './format.js';

// Bar is a bullet chart: reserved is the band, used the line within, a tick stands where no more may be placed.
class Bar extends Pure {
  render({ label, used, reserved, allocatable, capacity, text }) {
    const part = (v) => (capacity > 0 ? Math.min(100, (100 * v) / capacity).toFixed(2) + '%' : '0');
    return html`<div class="bar"><span class="what">${label}</span>
      <div class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${capacity} aria-valuenow=${used} aria-valuetext=${text}>
        <span class="reserved" style=${{ width: part(reserved) }}></span><span class=${'used' + (used > 0.9 * capacity ? ' full' : '')} style=${{ width: part(used) }}></span>
        <span class="tick" style=${{ left: part(allocatable) }}></span></div>
      <span class="text">${text}</span></div>`;
  }
}

const label = (i) => `${i.function}, ${stateOf(i)}, ${i.held} of ${i.slots} slots, ${bytesText(i.memoryReserved)} reserved`;

class Tile extends Pure {
  render({ instance: i, first }) {
    const held = i.slots > 0 ? Math.min(100, Math.max(i.held > 0 ? 12 : 0, (100 * i.held) / i.slots)) : 0;
    return html`<button type="button" class=${'tile ' + stateOf(i)} data-id=${i.id} tabindex=${first ? 0 : -1} aria-label=${label(i)}>
      ${held > 0 && html`<span class="held" style=${{ height: held + '%' }}></span>`}
      <span class="mem" style=${{ width: Math.min(100, (100 * i.memoryUsed) / (i.memoryReserved || 1)) + '%' }}></span></button>`;
  }
}

// Group is a function's instances on a node, in columns. A column of k tiles is k tiles wide, so that area is memory to the pixel.
class Group extends Pure {
  render({ group, colour, basis, width, height, hot, first }) {
    const n = group.items.length;
    const most = Math.max(1, Math.floor(height / 7));
    const rows = Math.min(most, n, Math.max(1, Math.round(Math.sqrt((1.5 * n * height) / Math.max(1, width)))));
    const columns = [];
    for (let k = 0; k < n; k += rows) columns.push(group.items.slice(k, k + rows));
    return html`<div class=${'group c' + colour + (hot ? ' hot' : '')} style=${{ flexBasis: basis + '%' }}>
      ${columns.map((items, c) => html`<div key=${items[0].id} class="column" style=${{ flexGrow: items.length }}>
        ${items.map((i, k) => html`<${Tile} key=${i.id} instance=${i} first=${first && c === 0 && k === 0} />`)}</div>`)}
      ${width > 46 && height > 24 && html`<span class="label" aria-hidden="true">${group.items[0].function}</span>`}</div>`;
  }
}

class NodeRow extends Pure {
  render({ node: n, groups, widest, width, height, zoom, colours, hot, ago }) {
    const capacity = n.memory.capacity || 1;
    const floor = (width * capacity) / widest;
    const kept = Math.max(0, n.memory.capacity - n.memory.allocatable);
    const free = Math.max(0, n.memory.allocatable - n.memory.reserved);
    const count = groups.reduce((sum, g) => sum + g.items.length, 0);
    const room = floor * (1 - (kept + zoom * sumMemory(groups)) / capacity);
    const thin = height < 50;
    return html`<li class=${'node ' + n.state + (thin ? ' thin' : '')}>
      <div class="about">
        <h3>${n.name} <span class="arch">${n.architecture}</span>${n.pool && html`<span class="arch pool">${n.pool}</span>`}${n.state !== 'ready' && html`<span class="state">${n.state === 'lost' ? `silent for ${ago}` : n.state}${n.state === 'draining' && n.left > 0 && `, ${n.left} left`}</span>`}
          ${n.reason && html`<span class="why">${n.reason}</span>`}</h3>
        <${Bar} label="CPU" used=${n.cpu.used} reserved=${n.cpu.reserved} allocatable=${n.cpu.allocatable} capacity=${n.cpu.capacity}
          text=${`${cores(n.cpu.used)} of ${coresText(n.cpu.capacity)} · ${cores(n.cpu.reserved)} reserved`} />
        <${Bar} label="Mem" used=${n.memory.used} reserved=${n.memory.reserved} allocatable=${n.memory.allocatable} capacity=${n.memory.capacity}
          text=${`${bytesOf(n.memory.used, n.memory.capacity)} · ${bytesText(n.memory.reserved)} reserved`} />
      </div>
      <div class="floor"><div class="mat" role="group" aria-label=${`${plural(count, 'instance')} on ${n.name}`}
        style=${{ width: ((100 * capacity) / widest).toFixed(2) + '%', height: height + 'px' }}>
        ${groups.map((g, k) => html`<${Group} key=${g.key} group=${g} colour=${colours.of(g.key)} first=${k === 0} hot=${hot === g.key} height=${height}
          basis=${((100 * zoom * g.memory) / capacity).toFixed(3)} width=${(floor * zoom * g.memory) / capacity} />`)}
        <span class="free">${room > 70 && height > 24 ? bytesText(free) + ' free' : ''}</span>
        ${kept > 0 && html`<span class="kept" title="kept for the system" style=${{ flexBasis: ((100 * kept) / capacity).toFixed(2) + '%' }}></span>`}
      </div></div></li>`;
  }
}

const sumMemory = (groups) => groups.reduce((sum, g) => sum + g.memory, 0);

// zoomOf is how many times larger than the floor tiles are drawn: instances are often so small that to scale none could be seen. It changes by
// doubling and halving, and late, so that tiles keep their size while instances come and go.
function zoomOf(state, before) {
  const fill = Math.max(0, ...state.nodeList.map((n) => sumMemory(state.groups.get(n.id) ?? none) / (n.memory.capacity || 1)));
  let zoom = before;
  while (zoom > 1 && fill * zoom > 0.8) zoom /= 2;
  while (zoom < 64 && fill > 0 && fill * zoom <= 0.25) zoom *= 2;
  return zoom;
}

const Legend = ({ zoom }) => html`<ul class="legend" aria-label="What tiles mean">
  ${['busy', 'idle', 'frozen', 'starting', 'draining'].map((s) => html`<li><span class=${'tile c0 ' + s}>${s === 'busy' && html`<span class="held" style=${{ height: '60%' }}></span>`}</span>${s}</li>`)}
  <li class="how">one tile is one instance, as large as the memory it reserves${zoom > 1 && ` (drawn ${zoom}× larger)`}; the line in it is what it uses</li>
  ${zoom > 1 && html`<li class="short">tiles drawn ${zoom}× larger</li>`}</ul>`;

// PoolRow says how many workers a pool has and should have, what waits for more, and how that came.
class PoolRow extends Pure {
  render({ pool: p, ago }) {
    const short = p.wanted !== p.count || p.running < p.count || p.lacking > 0;
    return html`<li class=${'pool' + (short ? ' short' : '')}><strong>${p.name}</strong>
      <span>${p.running} of ${plural(p.count, 'worker')} running${p.wanted !== p.count && html`, <b>${p.wanted} wanted</b>`}${p.elastic ? ` (${p.min} to ${p.max})` : ', not resized from here'}</span>
      ${p.lacking > 0 && html`<span class="lacking">${plural(p.lacking, 'instance')} without room</span>`}
      ${p.busy && html`<span>${p.busy}</span>`}${p.reason && html`<span class="why">now: ${p.reason}</span>`}
      ${p.resized && html`<span class="why">last: ${p.resized.from} → ${p.resized.to}, ${ago} ago: ${p.resized.reason}</span>`}</li>`;
  }
}

// ServerRow says whether a server of the cluster is there, and which one leads.
class ServerRow extends Pure {
  render({ server: s, ago }) {
    return html`<li class=${'pool' + (s.up ? '' : ' short')}><strong>${s.name}</strong>
      <span>${s.up ? (s.leads ? 'leads' : 'up') : html`<b>missing</b>${ago && ` for ${ago}`}`}</span><span class="why">${s.peer}</span>
      ${s.gateway ? html`<span>${rate(s.gateway.rps)}/s, ${count(s.gateway.inFlight)} in flight</span>` : s.up && html`<span class="lacking">does not tell its traffic</span>`}
      ${s.misses && html`<span class="lacking">does not hear ${s.misses.join(', ')}</span>`}</li>`;
  }
}

export class Nodes extends Component {
  zoom = 1;
  componentDidMount() {
    this.size = new ResizeObserver(() => {
      const width = this.list?.querySelector('.floor')?.clientWidth || 0;
      if (Math.abs(width - (this.state.width || 0)) > 4) this.setState({ width });
    });
    this.size.observe(this.list);
  }
  componentWillUnmount() { this.size.disconnect(); }

  over = (e) => {
    const tile = e.target.closest?.('[data-id]');
    this.props.onPoint(tile ? { id: tile.dataset.id, rect: tile.getBoundingClientRect() } : null);
  };
  leave = () => this.props.onPoint(null);
  click = (e) => {
    const tile = e.target.closest?.('[data-id]');
    if (tile) this.props.onChoose(tile.dataset.id);
  };
  // Arrows walk over the tiles of all nodes; Tab goes from node to node.
  key = (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (!step || !e.target.matches('.mat .tile')) return;
    const all = [...this.list.querySelectorAll('.mat .tile')];
    const next = all[all.indexOf(e.target) + step];
    if (next) { e.preventDefault(); next.focus(); }
  };

  render({ state, hot, now }, { width = 900 }) {
    const widest = Math.max(1, ...state.nodeList.map((n) => n.memory.capacity));
    const many = state.nodeList.length;
    this.zoom = zoomOf(state, this.zoom);
    const height = many <= 2 ? 104 : many <= 4 ? 76 : many <= 12 ? 52 : many <= 60 ? 30 : 14;
    return html`<section class="panel nodes" aria-labelledby="nodes-title">
      <header><h2 id="nodes-title">Nodes</h2><${Legend} zoom=${this.zoom} /><${Command} text="tatami node ls" /></header>
      ${state.servers.length > 0 && html`<ul class="pools servers" aria-label="Servers of the cluster">${state.servers.map((s) => html`<${ServerRow} key=${s.peer} server=${s}
        ago=${s.heard ? span(now - Date.parse(s.heard)) : ''} />`)}</ul>`}
      ${state.pools.length > 0 && html`<ul class="pools" aria-label="Pools of workers">${state.pools.map((p) => html`<${PoolRow} key=${p.name} pool=${p}
        ago=${p.resized ? span(now - Date.parse(p.resized.at)) : ''} />`)}</ul>`}
      <ul class=${'floors' + (hot ? ' pointing' : '')} ref=${(el) => { if (el) this.list = el; }} onMouseOver=${this.over} onMouseLeave=${this.leave}
        onFocusIn=${this.over} onFocusOut=${this.leave} onClick=${this.click} onKeyDown=${this.key}>
        ${state.nodeList.map((n) => html`<${NodeRow} key=${n.id} node=${n} groups=${state.groups.get(n.id) ?? none} widest=${widest} width=${width} height=${height} zoom=${this.zoom}
          colours=${state.colours} hot=${hot} ago=${n.state === 'lost' ? span(now - Date.parse(n.lastSeen)) : ''} />`)}
      </ul>${many === 0 && html`<p class="nothing">No node has reported yet.</p>`}</section>`;
  }
}
const none = [];

// Tip says what a tile is.
export const Tip = ({ instance: i, rect, now }) => {
  const narrow = Math.min(320, innerWidth - 16);
  const left = Math.max(8, Math.min(rect.left, innerWidth - narrow - 8));
  const below = rect.bottom + 180 < innerHeight || rect.top < 190;
  const style = { left: left + 'px', width: narrow + 'px', ...(below ? { top: rect.bottom + 6 + 'px' } : { bottom: innerHeight - rect.top + 6 + 'px' }) };
  const rows = [
    ['State', sinceOf(i, now) + (i.adopted ? ', adopted after a restart' : '')],
    ['Slots', `${i.held} of ${i.slots} held`],
    ['Memory', `${bytesText(i.memoryUsed)} used, ${bytesText(i.memoryReserved)} reserved (${share(i.memoryUsed / (i.memoryReserved || 1))})`],
    ['CPU', `${cores(i.cpuUsed)} of ${coresText(i.cpuReserved)}`],
    ...(i.startMs ? [['Start took', msText(i.startMs)]] : []),
    ['Revision', i.revision],
    ...(i.reason ? [['Reason', i.reason]] : []),
    ...(i.placement ? [['Placed', i.placement]] : []),
  ];
  return html`<div class="tip" role="tooltip" style=${style}><strong>${i.function}</strong> <span class="ns">${i.namespace}</span><code>${i.id}</code>
    <dl>${rows.map(([k, v]) => html`<dt>${k}</dt><dd>${v}</dd>`)}</dl></div>`;
};
