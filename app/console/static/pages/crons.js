/** Crons: their schedules and next times; made, paused, run now and deleted. */

import { call, get, post, query } from "../js/api.js";
import { ago, button, empty, fill, fullDate, h, pageHead, problemPlace } from "../js/dom.js";
import { link } from "../js/router.js";
import { agentName, agents } from "../js/state.js";
import { Listing, sureButton } from "../js/table.js";

export const page = () => new CronsPage();

class CronsPage {
  title = "Crons";

  constructor() {
    this._problem = problemPlace();
    this._list = new Listing({
      label: "Crons",
      load: (offset) => query("/runs/crons/search", { limit: 50, offset }),
      none: empty("No cron yet", "A cron starts runs at the times of a schedule."),
      columns: [
        ["Schedule", (cron) => [h("code", null, cron.schedule), cron.timezone && h("div.faint", null, cron.timezone)]],
        ["Agent", (cron) => agentName(cron.assistant_id), "name"],
        ["Thread", (cron) => (cron.thread_id ? h("a", { href: link(`threads/${cron.thread_id}`), "data-go": `threads/${cron.thread_id}` }, "open") : h("span.faint", null, "a new one each time")), "name"],
        ["Next run", (cron) => (cron.enabled === false ? h("span.status", null, "paused") : nextTimes(cron))],
        ["", (cron) => h("div.actions", null, button("Run now", () => this._do(() => this._run(cron))),
          button(cron.enabled === false ? "Resume" : "Pause", () => this._do(() => call("PATCH", `/runs/crons/${cron.cron_id}`, { enabled: cron.enabled === false }))),
          sureButton("Delete", () => this._do(() => call("DELETE", `/runs/crons/${cron.cron_id}`)), { kind: "danger" }))],
      ],
    });
    this.element = h("div.page", null, pageHead("Crons", "Runs on a schedule.", button("New cron", () => this._form(), { kind: "primary", glyph: "plus" })),
      this._new = h("div"), this._problem, this._list.element);
  }

  show() {
    return this._list.reload();
  }

  async _do(act) {
    try {
      await act();
      this._problem.show(null);
      await this._list.reload();
    } catch (error) {
      this._problem.show(error);
    }
  }

  _run(cron) {
    const { input, config, context } = cron.payload ?? {};
    return post(cron.thread_id ? `/threads/${cron.thread_id}/runs` : "/runs",
      { assistant_id: cron.assistant_id, input, config, context, ...(cron.thread_id ? {} : { on_completion: "keep" }) }, { once: true });
  }

  _form() {
    const agent = h("select", { id: "cron-agent" }, agents().map((one) => h("option", { value: one.assistant_id }, one.name)));
    const schedule = h("input", { type: "text", value: "0 9 * * 1-5", required: true });
    const zone = h("input", { type: "text", value: Intl.DateTimeFormat().resolvedOptions().timeZone });
    const input = h("textarea", { rows: "2", dir: "auto" });
    const times = h("p.faint", { role: "status" });
    const preview = () => showTimes(times, schedule.value, zone.value);
    schedule.addEventListener("input", preview);
    zone.addEventListener("input", preview);
    preview();
    const labelled = (title, control, note) => h("label.field", null, h("span", null, title), control, note && h("small.faint", null, note));
    const form = h("form.card", null, h("h2", null, "New cron"), labelled("Agent", agent),
      labelled("Schedule", schedule, "Minute, hour, day of the month, month, day of the week"), labelled("Time zone", zone), times,
      labelled("Message", input), h("div.buttons", null, h("button.button.primary", { type: "submit" }, "Create"), button("Cancel", () => fill(this._new))));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._do(async () => {
        await post("/runs/crons", { assistant_id: agent.value, schedule: schedule.value, timezone: zone.value || null,
          input: { messages: [{ role: "user", content: input.value }] }, on_run_completed: "keep" }, { once: true });
        fill(this._new);
      });
    });
    fill(this._new, form);
    schedule.focus();
  }
}

/** The next time, and on demand those after it. */
function nextTimes(cron) {
  if (!cron.next_run_date) return ago(null);
  const place = h("div.faint");
  return h("details", { ontoggle: () => showTimes(place, cron.schedule, cron.timezone) }, h("summary", null, ago(cron.next_run_date)), place);
}

/** Show when a schedule is due, or why it is not one. */
async function showTimes(place, schedule, zone) {
  const turn = (place.turn = Symbol("times"));
  const asked = new URLSearchParams({ schedule, ...(zone && { timezone: zone }) });
  const found = await get(`/runs/crons/times?${asked}`).then((times) => times.map((time) => h("div", null, fullDate(time))), (error) => error.detail);
  if (turn === place.turn) fill(place, found);
}
