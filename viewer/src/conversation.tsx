// The turns of a trajectory: thoughts, calls and results folded.
import { number } from "./app";
import type { Call, Message, Result, Trajectory, Turn } from "./types";

const brief = (text: string, length: number): string => {
  const line = text.split(/\s+/).join(" ").trim();
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
};

export const argumentsText = (call: Call): string => {
  if (typeof call.arguments !== "object" || call.arguments === null) return String(call.arguments ?? "");
  return Object.entries(call.arguments).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ");
};
const fullArguments = (call: Call): string =>
  typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments, null, 2);

export function CallView({ call, result, open }: { call: Call; result?: Result; open: boolean }) {
  const failed = call.error !== null || (result?.error ?? null) !== null;
  return (
    <details class={`call${failed ? " failed" : ""}`} open={open}>
      <summary>
        <code>{call.error === null || call.name ? <><b>{call.name || "call"}</b>({brief(call.error === null ? argumentsText(call) : call.raw, 90)})</> : brief(call.raw, 90)}</code>
        {call.error !== null && <span class="bad small"> {result ? "malformed" : call.error}</span>}
        {result && <span class="outcome small"> → {brief(result.content || result.error || "", 70)}</span>}
      </summary>
      <pre>{call.error === null ? fullArguments(call) : call.raw}</pre>
      {result && <ResultView result={result} />}
    </details>
  );
}

function ResultView({ result }: { result: Result }) {
  const shown = result.error !== null && !result.content.includes(result.error.split(": ").slice(1).join(": ") || result.error);
  return (
    <div class={`result${result.error === null ? "" : " failed"}`}>
      {shown && <span class="bad">{`${result.error}\n`}</span>}
      <pre>{result.content}</pre>
    </div>
  );
}

export function MessageView({ message, open = true }: { message: Message; open?: boolean }) {
  return (
    <details class="message" open={open}>
      <summary class="soft small">{message.role}</summary>
      <div class="text">{message.content}</div>
    </details>
  );
}

export function TurnView({ turn, place, open }: { turn: Turn; place: number; open: boolean }) {
  return (
    <section class="turn">
      <div class="turn-head small">
        <b>turn {place + 1}</b>
        {turn.stop === "length" && <span class="bad">cut off</span>}
        <span class="grow" />
        {turn.reward !== null && <span class="good" title="turn reward">reward {number(turn.reward)}</span>}
        {turn.advantage !== null && <span class={turn.advantage < 0 ? "bad" : "gain"} title="turn advantage">advantage {number(turn.advantage)}</span>}
      </div>
      {turn.thought && (
        <details class="thought" open={open}>
          <summary>{brief(turn.thought, 110)}</summary>
          {turn.thought.length > 110 || turn.thought.includes("\n") ? <div class="text">{turn.thought}</div> : null}
        </details>
      )}
      {turn.said && <div class="text said">{turn.said}</div>}
      {turn.calls.map((call, index) => <CallView key={index} call={call} result={turn.results[index]} open={open} />)}
      {turn.follow_up.map((message, index) => <MessageView key={index} message={message} />)}
    </section>
  );
}

export function Ending({ one }: { one: Trajectory }) {
  const stop = one.row.stop.replaceAll("_", " ");
  return (
    <>
      {one.answer !== null ? <div class="answer"><span class="soft small">answer </span><span class="text">{one.answer}</span></div>
        : one.row.stop === "called" ? <div class="answer soft">ends with its calls, which nothing executes</div>
          : <div class="answer bad">no answer ({stop})</div>}
      {one.failure && <p class="bad small">{one.failure}</p>}
    </>
  );
}

export function Conversation({ one, open }: { one: Trajectory; open: boolean }) {
  return (
    <div class="conversation">
      {one.turns.map((turn, place) => <TurnView key={place} turn={turn} place={place} open={open} />)}
      <Ending one={one} />
    </div>
  );
}

export const verdictWords = (one: Trajectory): string =>
  one.verdict === null ? "not judged"
    : `${one.verdict.correct ? "right" : "wrong"}, outcome ${+one.verdict.outcome.toFixed(4)}: ${one.verdict.reason}`;
