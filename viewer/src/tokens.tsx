// The tokens of a trajectory, coloured by what training made of them.
import { useState } from "preact/hooks";
import { useApp, useLoaded, whole } from "./app";
import type { Segment } from "./types";

type Mode = "advantage" | "log_prob" | "mask";
const MODES: [Mode, string][] = [["advantage", "advantage"], ["log_prob", "log-probability"], ["mask", "loss mask"]];

export function TokensView({ id }: { id: string }) {
  const app = useApp();
  const [mode, setMode] = useState<Mode>("advantage");
  const { value, error } = useLoaded(() => app.source.tokens(app.run, id), [app.run, id], id);
  if (error) return <p class="soft">{error}</p>;
  if (value === null) return <p class="soft">Loading…</p>;
  const largest = Math.max(1e-9, ...value.segments.map((one) => Math.abs(one.advantage ?? 0)));
  const missing = mode === "advantage" ? value.segments.every((one) => one.advantage === null)
    : mode === "log_prob" && value.segments.every((one) => one.log_probs === null);
  return (
    <>
      <div class="controls" role="group" aria-label="colour">
        {MODES.map(([key, title]) => <button type="button" key={key} aria-pressed={mode === key} onClick={() => setMode(key)}>{title}</button>)}
      </div>
      <Legend mode={mode} largest={largest} />
      {missing && <p class="soft small">{mode === "advantage" ? "This trajectory is in no group, so it has no advantages." : "The engine returned no log-probabilities."}</p>}
      {value.problem && <p class="soft small">{value.problem}</p>}
      <div class={`tokens${value.problem ? " ids" : ""}`}>
        {value.segments.map((segment, place) => <SegmentView key={place} segment={segment} mode={mode} largest={largest} />)}
      </div>
      {value.left_out > 0 && <p class="soft small">{whole(value.left_out)} more tokens</p>}
    </>
  );
}

function Legend({ mode, largest }: { mode: Mode; largest: number }) {
  const items: [string, string][] = mode === "mask" ? [["trained on", colour("mask", 1, 1)], ["not trained on", "transparent"]]
    : mode === "log_prob" ? [["p = 1", colour("log_prob", 0, 1)], ["p = 0.5", colour("log_prob", Math.log(0.5), 1)], ["p ≤ 0.01", colour("log_prob", Math.log(0.01), 1)]]
      : [[`−${largest.toFixed(2)}`, colour("advantage", -1, 1)], ["0", "transparent"], [`+${largest.toFixed(2)}`, colour("advantage", 1, 1)]];
  return <p class="legend small">{items.map(([title, fill]) => <span key={title}><i style={{ background: fill }} />{title}</span>)}</p>;
}

/** Blue: positive or trained on. Orange: negative or unlikely. */
function colour(mode: Mode, value: number | null, largest: number): string {
  if (value === null) return "transparent";
  const share = mode === "advantage" ? value / largest : mode === "mask" ? value : Math.max(value / Math.log(0.01), 0) * -1;
  const strength = Math.min(1, Math.abs(share)) * 0.62;
  return share >= 0 ? `rgb(60 130 210 / ${strength})` : `rgb(225 120 30 / ${strength})`;
}

function SegmentView({ segment, mode, largest }: { segment: Segment; mode: Mode; largest: number }) {
  const title = segment.kind === "turn" ? `turn ${segment.turn + 1}` : segment.kind === "result" ? "result" : "prompt";
  const shown = segment.texts ?? segment.ids.map((id) => ` ${id}`);
  return (
    <details class={`segment ${segment.kind}`} open={segment.kind !== "prompt"}>
      <summary class="soft small tag">{title}, {whole(segment.ids.length)} tokens{segment.advantage === null ? "" : ` · advantage ${segment.advantage.toFixed(3)}`}</summary>
      <div class="text">
        {shown.map((text, place) => {
          const log = segment.log_probs?.[place] ?? null;
          const value = mode === "advantage" ? segment.advantage : mode === "mask" ? segment.mask : segment.kind === "turn" ? log : null;
          const about = `token ${segment.ids[place]}${log === null ? "" : `, log-probability ${log.toFixed(3)}`}, ${segment.mask ? "trained on" : "not trained on"}`;
          return <span key={place} title={about} style={{ background: colour(mode, value, largest) }}>{text}</span>;
        })}
      </div>
    </details>
  );
}
