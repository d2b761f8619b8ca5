// The page: keeps the state, listens to the stream and to the keyboard.
import { Component, Command, html, render } from './view.js';
import { Colours, fromDelta, fromSnapshot, functionKey } from './store.js';
import { Stream } from './stream.js';
import { VerdictLine, Strip } from './strip.js';
import { Nodes, Tip } from './mats.js';
import { Functions, Queues, Quotas } from './tables.js';
import { span } from './format.js';

const Empty = () => html`<section class="panel empty"><h2>Nothing is deployed yet</h2>
  <p>A function is a program that answers HTTP. Three commands bring one up:</p>
  <ol><li><${Command} text="tatami init hello" /><span>makes a directory with a small function and its tatami.yaml</span></li>
    <li><${Command} text="tatami deploy ./hello" /><span>builds it, uploads it and moves the traffic to it once it answers</span></li>
    <li><${Command} text="tatami invoke hello" /><span>calls it; it appears here within a second</span></li></ol></section>`;

const Denied = () => html`<section class="panel empty" role="alert"><h2>This page needs a session</h2>
  <p>On the machine where Tatami runs, ask for a link. It works once and opens this page with a session:</p>
  <p><${Command} text="tatami token link" /></p></section>`;

const Waiting = ({ lost }) => html`<section class="panel empty" role="status"><h2>${lost ? 'The gateway does not answer' : 'Connecting'}</h2>
  <p>${lost ? html`The page keeps trying. On the machine itself, <code>tatami doctor</code> says what is wrong.` : 'Waiting for the first picture.'}</p></section>`;

const Link = ({ status, age }) => {
  const words = { live: 'live', lost: age > 0 ? `connection lost, figures are ${span(age)} old` : 'connection lost', denied: 'signed out', connecting: 'connecting' };
  return html`<span class=${'link ' + status} role="status"><span class="dot" aria-hidden="true"></span>${words[status]}</span>`;
};

class App extends Component {
  state = { data: null, status: 'connecting', filter: '', hot: null, pinned: null, tip: null, tick: 0 };
  colours = new Colours();

  componentDidMount() {
    this.stream = new Stream({
      snapshot: (s) => this.setState({ data: fromSnapshot(s, this.colours) }),
      delta: (d) => this.setState((s) => (s.data ? { data: fromDelta(s.data, d) } : null)),
      status: (status) => this.setState((s) => (s.status === status ? null : { status })),
    });
    this.stream.open();
    this.clock = setInterval(() => {
      this.stream.check();
      if (this.state.status !== 'live') this.setState((s) => ({ tick: s.tick + 1 }));
    }, 1000);
    addEventListener('keydown', this.key);
    addEventListener('scroll', this.untip, { passive: true });
    addEventListener('online', () => this.stream.open());
  }

  componentDidUpdate() {
    const { data, status } = this.state;
    const mark = status === 'lost' || status === 'denied' ? '✕ ' : { bad: '✕ ', warn: '! ' }[data?.verdict.level] ?? '';
    if (document.title !== mark + 'Tatami') document.title = mark + 'Tatami';
  }

  key = (e) => {
    if (e.key === 'Escape') {
      this.setState({ tip: null, pinned: null, filter: '' });
      if (e.target === this.search) this.search.blur();
    } else if (e.key === '/' && !e.ctrlKey && !e.metaKey && !e.altKey && !e.target.matches?.('input, textarea')) {
      e.preventDefault();
      this.search?.focus();
    }
  };
  untip = () => { if (this.state.tip) this.setState({ tip: null }); };
  onPoint = (tip) => this.setState((s) => {
    const i = tip && s.data.instances.get(tip.id);
    return { tip: i ? tip : null, hot: i ? functionKey(i) : null };
  });
  onChoose = (id) => this.setState((s) => {
    const i = s.data.instances.get(id);
    const key = i && functionKey(i);
    return { pinned: s.pinned === key ? null : key };
  });
  onHot = (hot) => this.setState((s) => (s.hot === hot ? null : { hot }));
  onFilter = (filter) => this.setState({ filter });
  searchRef = (el) => { this.search = el; };

  render(_, { data, status, filter, hot, pinned, tip }) {
    const age = data ? performance.now() - data.received : 0;
    const now = data ? data.at + age : 0;
    const point = hot ?? pinned;
    const about = tip && data?.instances.get(tip.id);
    return html`
      <header class=${status === 'live' ? 'top' : 'top old'}><a class="brand" href="/ui"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="6" class="bg" /><g class="mats"><rect x="5" y="5" width="14" height="6.5" />
        <rect x="20.5" y="5" width="6.5" height="14" /><rect x="13" y="20.5" width="14" height="6.5" /><rect x="5" y="13" width="6.5" height="14" /></g><rect x="13" y="13" width="6" height="6" class="mid" /></svg>
        <h1>Tatami</h1></a>${data && html`<${VerdictLine} verdict=${data.verdict} problems=${data.problems} notices=${data.notices} />`}<${Link} status=${status} age=${age} /></header>
      <main class=${status === 'live' ? '' : 'old'}>
        ${!data ? (status === 'denied' ? html`<${Denied} />` : html`<${Waiting} lost=${status === 'lost'} />`) : html`
          ${status === 'denied' && html`<${Denied} />`}
          ${data.functionList.length === 0 && html`<${Empty} />`}
          <${Strip} state=${data} now=${now} />
          <${Nodes} state=${data} hot=${point} now=${now} onPoint=${this.onPoint} onChoose=${this.onChoose} />
          ${data.functionList.length > 0 && html`<div class="lower">
            <${Functions} state=${data} now=${now} filter=${filter} onFilter=${this.onFilter} hot=${point} onHot=${this.onHot} search=${this.searchRef} />
            <div class="side"><${Queues} state=${data} now=${now} /><${Quotas} namespaces=${data.namespaces} /></div></div>`}`}
      </main>
      ${about && html`<${Tip} instance=${about} rect=${tip.rect} now=${now} />`}`;
  }
}

const root = document.getElementById('app');
root.replaceChildren();
render(html`<${App} />`, root);
