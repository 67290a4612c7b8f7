// Terminal output in a <pre>: colours, bold and underline; "\r" begins the line anew, as progress bars have it.

const BASIC = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const STEPS = [0, 95, 135, 175, 215, 255];
/** So many lines are kept on the page; all that came can be downloaded. */
const MAX_LINES = 5000;
// An escape sequence, or the beginning of one whose end has not come.
const ESCAPE = /\x1b(?:\[([0-9;:]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g;
const UNFINISHED = /\x1b(?:\[[0-9;:]*[ -/]*|\][^\x07\x1b]*\x1b?)?$/;
const LONGEST = 4096;

/** One of the 256 colours of terminals, from 16 on. */
function indexed(n) {
  if (n >= 232) return `rgb(${Array(3).fill(8 + 10 * (n - 232)).join()})`;
  const i = n - 16;
  return `rgb(${[Math.floor(i / 36), Math.floor(i / 6) % 6, i % 6].map((step) => STEPS[step]).join()})`;
}

export class Terminal {
  constructor(pre) {
    this.pre = pre;
    this.clear();
  }

  clear() {
    this.pre.replaceChildren();
    this.style = {};
    this.rest = "";
    this.line = null;
    this.returned = false;
    this.decoder = new TextDecoder();
  }

  /** Bytes, which may end within a character or an escape sequence. */
  write(bytes) {
    const text = this.rest + this.decoder.decode(bytes, { stream: true });
    this.rest = (text.match(UNFINISHED) ?? [""])[0].slice(0, LONGEST);
    const whole = text.slice(0, text.length - this.rest.length);
    let at = 0;
    for (const found of whole.matchAll(ESCAPE)) {
      this.text(whole.slice(at, found.index));
      if (found[2] === "m") this.select((found[1] || "0").split(/[;:]/).map(Number));
      at = found.index + found[0].length;
    }
    this.text(whole.slice(at));
    while (this.pre.childElementCount > MAX_LINES) this.pre.firstElementChild.remove();
  }

  /** What is not the task's, but said about its output. */
  note(text) {
    this.line = null;
    const line = document.createElement("span");
    line.className = "note";
    line.textContent = `${text}\n`;
    this.pre.append(line);
  }

  text(text) {
    for (const part of text.match(/\r|\n|[^\r\n]+/g) ?? []) {
      if (part === "\r") this.returned = true;
      else if (part === "\n") {
        this.current().append("\n");
        this.line = null;
        this.returned = false;
      } else {
        if (this.returned) this.current().replaceChildren();
        this.returned = false;
        this.current().append(this.styled(part));
      }
    }
  }

  current() {
    if (this.line === null) {
      this.line = document.createElement("span");
      this.pre.append(this.line);
    }
    return this.line;
  }

  styled(text) {
    const { fg, bg, bold, underline } = this.style;
    if (fg === undefined && bg === undefined && !bold && !underline) return text;
    const span = document.createElement("span");
    if (bold) span.classList.add("bold");
    if (underline) span.classList.add("underline");
    for (const [name, property, value] of [["fg", "color", fg], ["bg", "backgroundColor", bg]]) {
      if (value === undefined) continue;
      if (typeof value === "number") span.classList.add(`${name}-${BASIC[value % 8]}`);
      else span.style[property] = value;
    }
    span.textContent = text;
    return span;
  }

  select(codes) {
    for (let i = 0; i < codes.length; i += 1) {
      const code = codes[i];
      if (code === 0) this.style = {};
      else if (code === 1) this.style.bold = true;
      else if (code === 22) this.style.bold = false;
      else if (code === 4) this.style.underline = true;
      else if (code === 24) this.style.underline = false;
      else if (code === 39) delete this.style.fg;
      else if (code === 49) delete this.style.bg;
      else if ((code >= 30 && code < 38) || (code >= 90 && code < 98)) this.style.fg = code % 10;
      else if ((code >= 40 && code < 48) || (code >= 100 && code < 108)) this.style.bg = code % 10;
      else if (code === 38 || code === 48) {
        const name = code === 38 ? "fg" : "bg";
        if (codes[i + 1] === 5) {
          this.style[name] = codes[i + 2] < 16 ? codes[i + 2] % 8 : indexed(codes[i + 2]);
          i += 2;
        } else if (codes[i + 1] === 2) {
          this.style[name] = `rgb(${codes.slice(i + 2, i + 5).join()})`;
          i += 4;
        }
      }
    }
  }
}
