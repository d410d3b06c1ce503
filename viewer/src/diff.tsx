// A repair beside its original, line by line, with the changed words marked.
import { argumentsText } from "./conversation";
import type { Trajectory } from "./types";

interface Line { kind: string; text: string }
type Pair = [Line | null, Line | null, "same" | "changed" | "removed" | "added"];
const MOST_CELLS = 4_000_000;

export function linesOf(one: Trajectory): Line[] {
  const lines: Line[] = [];
  const add = (kind: string, text: string) => text.split("\n").forEach((line) => { if (line.trim()) lines.push({ kind, text: line }); });
  for (const turn of one.turns) {
    add("thought", turn.thought);
    add("said", turn.said);
    turn.calls.forEach((call, place) => {
      add("call", call.error === null ? `${call.name}(${argumentsText(call)})` : `${call.raw || call.name} (${call.error})`);
      const result = turn.results[place];
      if (result) add(result.error === null ? "result" : "failed", result.content);
    });
    for (const message of turn.follow_up) add("message", `${message.role}: ${message.content}`);
  }
  if (one.answer !== null) add("answer", one.answer);
  else lines.push({ kind: "answer", text: `no answer (${one.row.stop.replaceAll("_", " ")})` });
  return lines;
}

/** The longest common subsequence, as pairs of places; two long sides are cut. */
function common<T>(left: T[], right: T[], same: (a: T, b: T) => boolean): [number, number][] {
  const most = Math.floor(Math.sqrt(MOST_CELLS));
  const [n, m] = [Math.min(left.length, most), Math.min(right.length, most)];
  const width = m + 1;
  const table = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      table[i * width + j] = same(left[i], right[j]) ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const pairs: [number, number][] = [];
  for (let i = 0, j = 0; i < n && j < m;) {
    if (same(left[i], right[j])) pairs.push([i++, j++]);
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return pairs;
}

export function aligned(left: Line[], right: Line[]): Pair[] {
  const pairs: Pair[] = [];
  let [i, j] = [0, 0];
  const gap = (end: number, other: number) => {
    while (i < end || j < other) {
      if (i < end && j < other && left[i].kind === right[j].kind) pairs.push([left[i++], right[j++], "changed"]);
      else if (i < end && (j >= other || !right.slice(j, other).some((line) => line.kind === left[i].kind))) pairs.push([left[i++], null, "removed"]);
      else if (j < other) pairs.push([null, right[j++], "added"]);
    }
  };
  for (const [a, b] of common(left, right, (x, y) => x.kind === y.kind && x.text === y.text)) {
    gap(a, b);
    pairs.push([left[i++], right[j++], "same"]);
  }
  gap(left.length, right.length);
  return pairs;
}

export function Diff({ before, after }: { before: Trajectory; after: Trajectory }) {
  return (
    <div class="diff" role="table" aria-label="difference">
      <div class="pair head small" role="row"><b role="columnheader">before</b><b role="columnheader">after</b></div>
      {aligned(linesOf(before), linesOf(after)).map(([left, right, change], place) => {
        const [a, b] = change === "changed" ? marked(left!.text, right!.text) : [left?.text, right?.text];
        return (
          <div class={`pair ${change}`} role="row" key={place}>
            <div role="cell" class={left ? `line ${left.kind}` : "line none"}>{left && <><span class="tag soft">{left.kind}</span><span class="text">{a}</span></>}</div>
            <div role="cell" class={right ? `line ${right.kind}` : "line none"}>{right && <><span class="tag soft">{right.kind}</span><span class="text">{b}</span></>}</div>
          </div>
        );
      })}
    </div>
  );
}

function marked(left: string, right: string) {
  const [a, b] = [left, right].map((text) => text.match(/\w+|\s+|[^\w\s]/g) ?? []);
  const pairs = common(a, b, (x, y) => x === y);
  const sides = [new Set(pairs.map(([i]) => i)), new Set(pairs.map(([, j]) => j))];
  return [a, b].map((parts, side) => parts.map((word, place) => sides[side].has(place) ? word : <mark key={place}>{word}</mark>));
}
