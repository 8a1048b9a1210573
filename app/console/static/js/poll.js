/** Calls that are made again and again while a page is shown. */

/** Calls `act` at once and then every `ms`: one call at a time, none while the tab is hidden, none once it is stopped. */
export class Poll {
  constructor(act, ms) {
    this._act = act;
    this._ms = ms;
  }

  /** Make the first call, whose error is the caller's; a later one that fails is made again in its time. */
  async start() {
    await this._act();
    this._wait();
  }

  stop() {
    this._stopped = true;
    clearTimeout(this._timer);
  }

  _wait() {
    if (this._stopped) return;
    this._timer = setTimeout(async () => {
      if (!document.hidden) await this._act().catch(() => {});
      this._wait();
    }, this._ms);
  }
}
