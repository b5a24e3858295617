/** The connection to the console's server: asks for a step, applies it, asks again. */

import type { Step } from "./model";

const FIRST_MS = 250;
const CAP_MS = 5_000;
const DEADLINE_MS = 6_000; // the server answers every second, with news or without
const HIDDEN_MS = 2_000; // a tab nobody looks at asks rarely, and is whole again at once when it is shown

export class Stream {
  connected = false;
  since = Date.now();
  /** Half the way there and back, ms. */
  lag = 0;
  private socket: WebSocket | null = null;
  private backoff = FIRST_MS;
  private asked = 0;
  private watchdog = 0;
  private pause = 0;

  constructor(
    private readonly onStep: (step: Step) => void,
    private readonly onState: () => void,
  ) {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden || !this.pause) return;
      clearTimeout(this.pause);
      this.ask();
    });
    this.connect();
  }

  private connect(): void {
    const socket = new WebSocket(new URL("api/stream", location.href.replace(/^http/, "ws").replace(/#.*/, "")));
    this.socket = socket;
    socket.onopen = () => this.ask();
    socket.onmessage = (event: MessageEvent<string>) => {
      const step = JSON.parse(event.data) as Step;
      this.lag = Math.max(0, performance.now() - this.asked - (step.held ?? 0)) / 2;
      this.backoff = FIRST_MS;
      if (!this.connected) {
        this.connected = true;
        this.since = Date.now();
        this.onState();
      }
      this.onStep(step);
      if (document.hidden) this.pause = window.setTimeout(() => this.ask(), HIDDEN_MS);
      else this.ask();
    };
    socket.onclose = () => {
      if (this.socket === socket) this.lost();
    };
  }

  private ask(): void {
    this.pause = 0;
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.asked = performance.now();
    this.socket.send("next");
    clearTimeout(this.watchdog);
    this.watchdog = window.setTimeout(() => this.lost(), DEADLINE_MS);
  }

  private lost(): void {
    clearTimeout(this.watchdog);
    clearTimeout(this.pause);
    this.pause = 0;
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    if (this.connected) {
      this.connected = false;
      this.since = Date.now();
    }
    this.onState();
    window.setTimeout(() => this.connect(), this.backoff * (0.5 + Math.random() / 2));
    this.backoff = Math.min(CAP_MS, this.backoff * 2);
  }
}
