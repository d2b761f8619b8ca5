// The page's copy of the picture. Each event gives a new state; what did not change stays the same object, so that views can tell.
export const functionKey = (f) => f.namespace + '/' + f.function;

const byID = (list) => new Map(list.map((x) => [x.id, x]));
const columnsOf = (h) => Object.fromEntries(h.columns.map((c, i) => [c, i]));

export function fromSnapshot(s, colours) {
  const state = {
    at: Date.parse(s.at), received: performance.now(), stale: s.stale ? Date.parse(s.stale) : 0,
    verdict: s.verdict, problems: s.problems, notices: s.notices, totals: s.totals, namespaces: s.namespaces, pools: s.pools, servers: s.servers ?? [],
    nodes: byID(s.nodes), instances: byID(s.instances), functions: new Map(s.functions.map((f) => [functionKey(f), f])),
    step: s.history.step, columns: columnsOf(s.history), limit: Math.round(900 / s.history.step), points: s.history.points,
    colours,
  };
  return arrange(state);
}

export function fromDelta(old, d) {
  const state = {
    ...old, at: Date.parse(d.at), received: performance.now(), stale: d.stale ? Date.parse(d.stale) : 0, totals: d.totals,
    verdict: d.verdict ?? old.verdict, problems: d.problems ?? old.problems, notices: d.notices ?? old.notices,
    namespaces: d.namespaces ?? old.namespaces, pools: d.pools ?? old.pools, servers: d.servers ?? old.servers,
  };
  const gone = d.gone ?? {};
  const merge = (map, items, key, dead) => {
    if (!items?.length && !dead?.length) return map;
    const next = new Map(map);
    for (const x of items ?? []) next.set(key(x), x);
    for (const k of dead ?? []) next.delete(k);
    return next;
  };
  state.nodes = merge(old.nodes, d.nodes, (n) => n.id, gone.nodes);
  state.instances = merge(old.instances, d.instances, (i) => i.id, gone.instances);
  const functions = d.functions?.map((f) => (f.spark ? f : { ...f, spark: old.functions.get(functionKey(f))?.spark }));
  state.functions = merge(old.functions, functions, functionKey, gone.functions);
  const points = old.points.slice();
  for (const p of d.points ?? []) {
    if (points.length && points[points.length - 1][0] === p[0]) points[points.length - 1] = p;
    else points.push(p);
  }
  state.points = points.slice(-state.limit);
  return arrange(state, old);
}

// arrange derives what the views want: nodes in order, instances by node and by function, a colour for each function.
function arrange(state, old) {
  if (state.nodes !== old?.nodes) {
    state.nodeList = [...state.nodes.values()].sort((a, b) => natural.compare(a.name, b.name) || cmp(a.id, b.id));
  }
  if (state.functions !== old?.functions) {
    state.functionList = [...state.functions.values()].sort((a, b) => cmp(a.namespace, b.namespace) || cmp(a.function, b.function));
  }
  if (state.instances !== old?.instances || state.functions !== old?.functions) {
    for (const f of state.functionList) state.colours.of(functionKey(f));
  }
  if (state.instances !== old?.instances) {
    state.groups = groupsByNode([...state.instances.values()], old?.groups);
  }
  return state;
}

// groupsByNode gives node -> [{key, items, memory}], in the order of the functions' names. A group in which nothing changed stays the same object.
function groupsByNode(instances, old) {
  const nodes = new Map();
  for (const i of instances) {
    let groups = nodes.get(i.node);
    if (!groups) nodes.set(i.node, groups = new Map());
    const key = functionKey(i);
    let g = groups.get(key);
    if (!g) groups.set(key, g = { key, items: [], memory: 0 });
    g.items.push(i);
    g.memory += i.memoryReserved;
  }
  const out = new Map();
  for (const [node, groups] of nodes) {
    const before = new Map((old?.get(node) ?? []).map((g) => [g.key, g]));
    const list = [...groups.values()].sort((a, b) => cmp(a.key, b.key));
    for (let n = 0; n < list.length; n++) {
      list[n].items.sort((a, b) => cmp(a.since, b.since) || cmp(a.id, b.id));
      const was = before.get(list[n].key);
      if (was && was.items.length === list[n].items.length && was.items.every((x, k) => x === list[n].items[k])) list[n] = was;
    }
    out.set(node, list);
  }
  return out;
}

// natural sorts rack-2 before rack-10.
const natural = new Intl.Collator('en', { numeric: true });

export const cmp = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// Colours gives each function one of a few colours and keeps it: first by the hash of its name, then by what is least taken. The first colours
// of the style sheet differ most: the others wait until those are gone.
export class Colours {
  static first = 6;
  static count = 10;
  #given = new Map();
  #taken = new Array(Colours.count).fill(0);
  of(key) {
    let c = this.#given.get(key);
    if (c === undefined) {
      let hash = 7;
      for (const ch of key) hash = (hash * 31 + ch.codePointAt(0)) >>> 0;
      const many = this.#taken.indexOf(0) < Colours.first && this.#taken.includes(0) ? Colours.first : Colours.count;
      const least = Math.min(...this.#taken.slice(0, many));
      c = hash % many;
      while (this.#taken[c] > least) c = (c + 1) % many;
      this.#taken[c]++;
      this.#given.set(key, c);
    }
    return c;
  }
}
