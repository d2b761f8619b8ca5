// The connection: events of /v1/stream, with a retry that ends only when the server says that we may not look.
export class Stream {
  // on.snapshot(object), on.delta(object), on.status(status): 'live', 'lost' or 'denied', with the time of the next try.
  constructor(on) { this.on = on; this.delay = 500; this.heard = 0; }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource('/v1/stream');
    this.source = source;
    const hear = (handle) => (e) => {
      if (this.source !== source) return;
      this.heard = performance.now();
      this.delay = 500;
      handle(JSON.parse(e.data));
      this.on.status('live');
    };
    source.addEventListener('snapshot', hear(this.on.snapshot));
    source.addEventListener('delta', hear(this.on.delta));
    source.onerror = () => {
      if (this.source !== source) return;
      // The browser tries again by itself after a broken connection, and gives up after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) this.ask();
      else this.on.status('lost');
    };
    this.heard = performance.now();
  }

  // check reopens a connection that is open but silent: a second without news is normal, twenty are not.
  check() {
    if (this.source && this.source.readyState === EventSource.OPEN && performance.now() - this.heard > 20000) {
      this.on.status('lost');
      this.open();
    }
  }

  // ask finds out why the server refused the stream, and tries again unless it wants a session.
  async ask() {
    let denied = false;
    try {
      const r = await fetch('/v1/overview', { method: 'GET', cache: 'no-store', credentials: 'same-origin' });
      denied = r.status === 401 || r.status === 403;
      await r.body?.cancel();
    } catch { /* not reached: as any other failure */ }
    if (denied) {
      this.on.status('denied');
      this.timer = setTimeout(() => this.open(), 5000);
      return;
    }
    this.delay = Math.min(this.delay * 2, 10000);
    this.on.status('lost');
    this.timer = setTimeout(() => this.open(), this.delay);
  }
}
