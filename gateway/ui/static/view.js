// The view library: preact's elements written with htm, and a component that renders anew only when a property changed.
import { h, Component, render } from './lib/preact.mjs';
import htm from './lib/htm.mjs';

export { Component, render };
export const html = htm.bind(h);

export class Pure extends Component {
  shouldComponentUpdate(next) {
    for (const k in next) if (next[k] !== this.props[k]) return true;
    for (const k in this.props) if (!(k in next)) return true;
    return false;
  }
}

// Command shows a command line and copies it.
export class Command extends Component {
  copy = async () => {
    const { text } = this.props;
    try {
      await navigator.clipboard.writeText(text);
      this.setState({ note: 'copied' });
    } catch {
      // Without a secure context there is no clipboard: select the text, so that one keystroke copies it.
      const range = document.createRange();
      range.selectNodeContents(this.code);
      const sel = getSelection();
      sel.removeAllRanges();
      sel.addRange(range);
      this.setState({ note: 'selected' });
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.setState({ note: '' }), 1500);
  };
  componentWillUnmount() { clearTimeout(this.timer); }
  render({ text }, { note }) {
    return html`<button type="button" class="command" onClick=${this.copy} title="Copy this command">
      <code ref=${(el) => { this.code = el; }}>${text}</code><span class="note" role="status">${note || ''}</span></button>`;
  }
}
