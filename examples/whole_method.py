"""The whole of MatchTIR in one file: rollout, matching, turn rewards, dual-level advantages, policy gradient.

    python examples/whole_method.py --steps 3

Written out with numpy and torch, to be read from top to bottom. From Rewright it takes the embedded world, its tools
and pico, a model of a million parameters that ships with the package; nothing of credit, rollout or training. A test
compares it with the library to 1e-6. The library adds batching that goes on while tools run, a sandbox, other dialects,
optimal transport, and every setting.

The method (arXiv 2601.10712), for the G rollouts of one task:
    similarity of a predicted and a gold call      S = (1 + shared names + equal values) / (2 + gold arguments)
    each gold call is matched with at most one call, so that the sum of S is largest
    turn reward    r_t = mean of S over the turn's calls; the last turn adds the outcome
    trajectory     A_i   = z-score of R_i = sum of r_t over the G rollouts
    turn           A_i,t = z-score of D_t = r_t + gamma D_t+1 over the rollouts that have a turn t
    every token that the model wrote in turn t gets (A_i + A_i,t) / 2
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewright.engines.pico import pico_path
from rewright.tasks.worlds.town import calculate, generate, look_up

GAMMA, EPS, CLIP = 0.9, 1e-6, 0.2
MAX_TURNS, MAX_TURN_TOKENS = 6, 64
CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
TOOLS = {f"rewright.tasks.worlds.town:{function.__name__}": function for function in (look_up, calculate)}
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


# Rollout ------------------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """One generation of the model: where its tokens lie, and the calls in it (None: malformed)."""

    start: int
    end: int
    calls: list[dict | None] = field(default_factory=list)


@dataclass
class Trajectory:
    """One attempt at a task: all tokens, the turns among them, and the answer."""

    ids: list[int]
    turns: list[Turn] = field(default_factory=list)
    answer: str | None = None


def read_calls(text: str) -> list[dict | None]:
    """The calls in a turn's text, outside of its thought. One that is no JSON object with a name is malformed."""
    calls: list[dict | None] = []
    for body in CALL.findall(text.rpartition("</think>")[2]):
        try:
            call = json.loads(body)
            calls.append({"name": call["name"], "arguments": dict(call.get("arguments") or {})})
        except (ValueError, TypeError, KeyError):
            calls.append(None)
    return calls


def execute(task, call: dict | None) -> str:
    """A tool's result, or its error, as text for the model."""
    if call is None:
        return "error: the call is not valid JSON"
    spec = next((tool for tool in task.tools if tool.name == call["name"]), None)
    if spec is None:
        return f"error: there is no tool {call['name']}"
    try:
        return str(TOOLS[spec.target](spec.data, **call["arguments"]))
    except Exception as problem:
        return f"error: {problem}"


@torch.no_grad()
def sample(model, tokenizer, contexts: list[list[int]], generator: torch.Generator) -> list[list[int]]:
    """One turn for each context, at temperature 1, up to the end token. Left padding, so that all end together."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    longest = max(map(len, contexts))
    ids = torch.tensor([[pad] * (longest - len(one)) + one for one in contexts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in contexts])
    written: list[list[int]] = [[] for _ in contexts]
    going = [True] * len(contexts)
    keys = None
    for _ in range(MAX_TURN_TOKENS):
        output = model(
            input_ids=ids if keys is None else ids[:, -1:],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -(ids.shape[1] if keys is None else 1) :],
            past_key_values=keys,
            use_cache=True,
        )
        keys = output.past_key_values
        chosen = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        for row, token in enumerate(chosen[:, 0].tolist()):
            if going[row]:
                written[row].append(token)
                going[row] = token != end
        if not any(going):
            break
        ids = torch.cat([ids, chosen], dim=1)
        mask = torch.cat([mask, torch.ones_like(chosen)], dim=1)
    return written


def roll_out(model, tokenizer, task, group: int, generator: torch.Generator) -> list[Trajectory]:
    """`group` attempts at a task. Tokens that the model wrote are kept as they are, never tokenised again."""
    prompt = tokenizer.apply_chat_template(
        list(task.messages), tools=[tool.schema for tool in task.tools], add_generation_prompt=True, return_dict=False
    )
    found = [Trajectory(list(prompt)) for _ in range(group)]
    going = list(found)
    for _ in range(MAX_TURNS):
        if not going:
            break
        for one, ids in zip(going, sample(model, tokenizer, [one.ids for one in going], generator), strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            turn = Turn(len(one.ids), len(one.ids) + len(ids), read_calls(text))
            one.turns.append(turn)
            one.ids += ids
            answer = ANSWER.search(text.rpartition("</think>")[2])
            if ids[-1] != tokenizer.eos_token_id:
                continue  # cut off: the attempt ends here
            if answer and not turn.calls:
                one.answer = answer[1].strip()
            elif turn.calls:
                results = [f"user\n<tool_response>{execute(task, call)}</tool_response>" for call in turn.calls]
                text = "\n" + "".join(f"<|im_start|>{result}<|im_end|>\n" for result in results)
                one.ids += tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False)
        going = [
            one for one in going if one.answer is None and one.turns[-1].calls and one.turns[-1].end < len(one.ids)
        ]
    return found


# Credit -------------------------------------------------------------------------------------------------------------


def equal(one, other) -> bool:
    """Equality of decoded JSON: 5 == 5.0, "5" != 5, True != 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def similarity(call: dict | None, gold: dict) -> float:
    """S of a predicted and a gold call (section 3.2); 0 where the names differ."""
    if call is None or call["name"].lower() != gold["name"].lower():
        return 0.0
    ours, theirs = call["arguments"], gold["arguments"]
    shared = ours.keys() & theirs.keys()
    union = ours.keys() | theirs.keys()
    names = len(shared) / len(union) if union else 1.0
    return (1 + names + sum(equal(ours[key], theirs[key]) for key in shared)) / (2 + len(theirs))


def assign(S: np.ndarray) -> np.ndarray:
    """The reward of each of P calls under the one-to-one matching of the largest sum; (P, G) -> (P,).

    By dynamic programming over the gold calls that are taken: exact, and short. (The library: Hungarian algorithm.)
    """
    count = S.shape[0]

    @cache
    def best(call: int, taken: int) -> tuple[float, tuple[int, ...]]:
        if call == count:
            return 0.0, ()
        total, rest = best(call + 1, taken)
        choice = (total, (-1, *rest))
        for gold in np.flatnonzero(S[call] > 0):
            if not taken >> int(gold) & 1:
                total, rest = best(call + 1, taken | 1 << int(gold))
                if S[call, gold] + total > choice[0] + 1e-12:
                    choice = (S[call, gold] + total, (int(gold), *rest))
        return choice

    matched = best(0, 0)[1]
    return np.array([S[call, gold] if gold >= 0 else 0.0 for call, gold in enumerate(matched)])


def turn_rewards(trajectory: Trajectory, gold: list[dict], outcome: float) -> np.ndarray:
    """(T,): the mean reward of each turn's calls; the last turn adds the outcome."""
    calls = [call for turn in trajectory.turns for call in turn.calls]
    S = np.array([[similarity(call, one) for one in gold] for call in calls]).reshape(len(calls), len(gold))
    rewards_P = iter(assign(S))
    rewards_T = np.array([np.mean([next(rewards_P) for _ in turn.calls] or [0.0]) for turn in trajectory.turns])
    rewards_T[-1] += outcome
    return rewards_T


def normalised(values: np.ndarray) -> np.ndarray:
    """(x - mean) / (sample std + eps); equal values give exactly 0."""
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return np.zeros_like(values)
    return (values - values.mean()) / (values.std(ddof=1) + EPS)


def advantages(rewards: list[np.ndarray]) -> list[np.ndarray]:
    """Turn advantages (T_i,) of the rollouts of one task. A turn that no sibling has gets no turn-level term."""
    trajectory_G = normalised(np.array([row.sum() for row in rewards]))
    returns = []
    for row in rewards:
        back = row.copy()
        for turn in range(len(row) - 2, -1, -1):
            back[turn] += GAMMA * back[turn + 1]
        returns.append(back)
    found = [np.zeros(len(row)) for row in rewards]
    for turn in range(max(map(len, rewards))):
        members = [index for index, row in enumerate(rewards) if len(row) > turn]
        for index, value in zip(members, normalised(np.array([returns[one][turn] for one in members])), strict=True):
            found[index][turn] = (trajectory_G[index] + value) / 2
    return found


# Policy gradient ----------------------------------------------------------------------------------------------------


def log_probs(model, trajectory: Trajectory) -> torch.Tensor:
    """(L - 1,): the log-probability of every token but the first. Tool results are attended to like everything."""
    ids = torch.tensor([trajectory.ids])
    logits = model(input_ids=ids).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


def token_advantages(trajectory: Trajectory, advantages_T: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(L - 1,) advantages and (L - 1,) mask: the tokens that the model wrote get their turn's, all others none."""
    advantages_L, mask_L = torch.zeros(len(trajectory.ids)), torch.zeros(len(trajectory.ids))
    for turn, value in zip(trajectory.turns, advantages_T, strict=True):
        advantages_L[turn.start : turn.end] = float(value)
        mask_L[turn.start : turn.end] = 1.0
    return advantages_L[1:], mask_L[1:]


def loss_of(model, trajectory: Trajectory, advantages_T: np.ndarray, old: torch.Tensor) -> torch.Tensor:
    """The clipped objective, mean over the tokens that the model wrote (GRPO)."""
    advantages_L, mask_L = token_advantages(trajectory, advantages_T)
    ratio = (log_probs(model, trajectory) - old).exp()
    objective = torch.minimum(ratio * advantages_L, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages_L)
    return -(objective * mask_L).sum() / mask_L.sum()


def main() -> None:
    """Train pico for a few steps and print what each step earned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=4, help="tasks in a step")
    parser.add_argument("--group", type=int, default=6, help="rollouts of a task")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(pico_path("pico"))
    model = AutoModelForCausalLM.from_pretrained(pico_path("pico"), dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    tasks = list(generate("train", options.steps * options.tasks, seed=0, profile="cached"))
    for step in range(options.steps):
        batch, outcomes = [], []
        for task in tasks[step * options.tasks : (step + 1) * options.tasks]:
            gold = [{"name": call.name, "arguments": dict(call.arguments)} for call in task.gold.calls]
            group = roll_out(model, tokenizer, task, options.group, generator)
            right = [float(one.answer in task.gold.answers) for one in group]
            rewards = [turn_rewards(one, gold, outcome) for one, outcome in zip(group, right, strict=True)]
            batch += zip(group, advantages(rewards), strict=True)
            outcomes += right
        optimizer.zero_grad()
        for trajectory, advantages_T in batch:
            with torch.no_grad():
                old = log_probs(model, trajectory)
            (loss_of(model, trajectory, advantages_T, old) / len(batch)).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        calls = np.mean([len(turn.calls) for one, _ in batch for turn in one.turns])
        print(f"step {step + 1}: success {np.mean(outcomes):.2f}, calls a turn {calls:.2f}, gradient norm {norm:.3f}")


if __name__ == "__main__":
    main()
