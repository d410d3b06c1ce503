// Trajectories side by side: the rollouts of a group, or one task under several models or runs.
import { number, useApp, useLoaded } from "./app";
import { Conversation, verdictWords } from "./conversation";
import { Mark } from "./list";
import { Picture } from "./picture";
import type { Trajectory } from "./types";

export function GroupScreen() {
  const app = useApp();
  const id = app.route.params.id ?? "";
  const { value, error } = useLoaded(async () => {
    const one = await app.source.trajectory(app.run, id);
    return app.source.many(app.run, one.group);
  }, [app.run, id, app.tick], id);
  if (error) return <main class="page"><p class="problem" role="alert">{error}</p></main>;
  if (value === null) return <main class="page"><p class="soft">Loading…</p></main>;
  return (
    <main class="page wide">
      <div class="over-title small"><a href={app.link("t", { id })}>← trajectory</a></div>
      <h1 class="title"><span class="text">{value[0].row.prompt || value[0].row.task}</span></h1>
      <SideBySide all={value} links={value.map((one) => app.link("t", { id: one.row.id }))} />
    </main>
  );
}

export function SideBySide({ all, links, titles }: { all: Trajectory[]; links: string[]; titles?: string[] }) {
  const app = useApp();
  const answer = all[0]?.task?.answers;
  return (
    <>
      <p class="soft small">{all.length} trajectories{answer ? ` · gold answer ${answer.join(" or ")}` : ""}
        {all.some((one) => one.recomputed) ? " · credit computed for the page: RL stored no credit" : ""}</p>
      <div class="sides" tabIndex={0}>
        {all.map((one, place) => (
          <section class={`side${one.row.id === app.route.params.id ? " at" : ""}`} key={one.row.id + place}>
            <h3><Mark row={one.row} /> <a href={links[place]}>{titles?.[place] ?? one.row.id}</a></h3>
            <p class="small soft">{verdictWords(one)}</p>
            <p class="small"><b>{number(one.credit?.trajectory_reward)}</b> trajectory reward · {one.row.turns} turns · {one.row.tokens} tokens</p>
            <Conversation one={one} open={false} />
            {one.credit && <details><summary class="soft small">matched calls</summary><Picture drawing={one.credit.drawing} /></details>}
          </section>
        ))}
      </div>
    </>
  );
}
