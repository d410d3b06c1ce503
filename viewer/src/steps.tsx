// The steps of RL: success and rewards over the steps, and every group of the chosen step.
import { useEffect } from "preact/hooks";
import { number, percent, readRoute, useApp, useLoaded } from "./app";
import { Chart } from "./chart";
import { SideBySide } from "./group";
import { Mark } from "./list";
import type { Step } from "./types";

export function Steps() {
  const app = useApp();
  const { steps } = app.head;
  const known = steps.map((one) => one.step);
  const asked = Number(app.route.params.at ?? known[0] ?? 0);
  const place = Math.max(0, known.indexOf(asked));
  const at = steps[place];
  const groups = useLoaded(() => at ? app.source.step(app.run, at.step) : Promise.resolve([]), [app.run, at?.step, app.tick], `${app.run}/${at?.step}`);
  const mine = groups.value?.find((one) => one.rows.some((row) => row.id === app.route.params.id)) ?? groups.value?.[0];
  const group = useLoaded(() => mine ? app.source.many(app.run, mine.rows.map((row) => row.id)) : Promise.resolve([]),
    [mine?.rows[0]?.id, mine?.rows.length, app.run], mine?.rows[0]?.id);
  const choose = (step: number) => app.go("steps", { at: String(step), id: "" });
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (["INPUT", "SELECT", "TEXTAREA"].includes((event.target as HTMLElement).tagName)) return;
      const move = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1 }[event.key] ?? 0;
      // The address is ahead of what is drawn when keys come fast.
      const next = known[Math.max(0, known.indexOf(Number(readRoute().params.at ?? known[0]))) + move];
      if (move && next !== undefined) choose(next);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
  if (!at) return <main class="page"><p class="soft">RL has no rollouts yet.</p></main>;
  const curve = (key: "success" | "reward" | "turn_reward") =>
    [{ name: key, points: steps.filter((one) => one[key] !== null).map((one: Step): [number, number] => [one.step + 1, one[key]!]) }];
  return (
    <main class="page wide">
      <div class="slider">
        <label for="step">step {at.step + 1} of {known[known.length - 1] + 1}</label>
        <input id="step" type="range" min="0" max={known.length - 1} value={place} onInput={(event) => choose(known[Number(event.currentTarget.value)])} />
        <span class="small">{at.success === null ? "–" : percent(at.success)} success · {number(at.reward)} trajectory reward · {number(at.turn_reward)} turn reward · {at.rollouts} rollouts of {at.groups} tasks</span>
      </div>
      <div class="charts">
        {([["success", "success"], ["reward", "trajectory reward"], ["turn_reward", "turn reward"]] as const).map(([key, title]) =>
          <Chart key={key} title={title} series={curve(key)} at={at.step + 1} onPick={(step) => choose(Math.round(step) - 1)} />)}
      </div>
      {groups.error && <p class="problem">{groups.error}</p>}
      <h2>Groups of this step</h2>
      <div class="groups" role="list">
        {groups.value?.length === 0 && <p class="soft">The groups of this step are left out of this file.</p>}
        {groups.value?.map((one) => (
          <a role="listitem" key={one.task} href={app.link("steps", { at: String(at.step), id: one.rows[0].id })} aria-current={one === mine ? "true" : undefined}>
            <span class="text">{one.prompt || one.task}</span>
            <span class="marks">{one.rows.map((row) => <Mark key={row.id} row={row} />)}</span>
          </a>
        ))}
      </div>
      {group.error && <p class="problem">{group.error}</p>}
      {group.value && group.value.length > 0 && (
        <SideBySide all={group.value} links={group.value.map((one) => app.link("t", { id: one.row.id }))} titles={group.value.map((_, index) => `rollout ${index + 1}`)} />
      )}
    </main>
  );
}
