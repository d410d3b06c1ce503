"""Recipes: what people write, and the one line that they get when it is wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.core.errors import InputError
from rewright.recipe.loader import load_recipe, recipe_hash
from rewright.recipe.schema import Recipe

SECTIONS = "expected one of build, dialect, dpo, eval, "


def recipe(folder: Path, text: str, *overrides: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text or "seed: 0  # says nothing new, but an empty file is a mistake\n", encoding="utf-8")
    return load_recipe(path, overrides)


LAUGHS = "a: &a [x, x]\n" + "".join(f"{two}: &{two} [{f'*{one},' * 9}]\n" for one, two in pairwise("abcdefghijk"))
MERGES = "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{<<: [{f'*{a},' * 9}]}}\n" for a, b in pairwise("abcdefghijk"))

NO_NAMES = ("../x", "../../x", ".", "..", "a/b/c", "/tmp/x", ".hidden", "'a\\b'", '"a\\nb"', "' a'", "'a '", '"\\e[2J"')
HUGE = "9" * 400
ANY_SIZE = "0x" + "F" * 5000  # of more digits than Python writes

SERVERS = (
    ("model", "path: m, engine: openai, ", "base_url"),
    ("reward", "", "url"),
    ("sandbox", "", "url"),
    ("tools", "", "search"),
)
NO_ADDRESSES = (
    ("localhost:8000", ""),
    ("127.0.0.1:8000/v1", ""),
    ("ftp://host/v1", ""),
    ("http://:8000", ""),
    ("http://host:99999", ""),
    ("http://ho st:80", "'http://ho st:80' holds a space"),
)

MISTAKES = [
    # Names.
    ("synht:\n  n: 2\n", [], ":1: unknown key synht: did you mean synth?"),
    ("seed: 1\nrl:\n  credit:\n    gama: 1\n", [], ":4: unknown key rl.credit.gama: did you mean rl.credit.gamma?"),
    ("eval:\n  tasks:\n    splt: long\n", [], ":3: unknown key eval.tasks.splt: did you mean eval.tasks.split?"),
    ("repair:\n  model:\n    pth: pico\n", [], ":3: unknown key repair.model.pth: did you mean repair.model.path?"),
    (
        "rl:\n  max_length: 512\n",
        [],
        ":2: unknown key rl.max_length: did you mean dpo.max_length, model.max_length, reward.max_length, ",
    ),
    ("xyz: 1\n", [], f":1: unknown key xyz: {SECTIONS}"),
    ("1: 2\n", [], f":1: unknown key 1: {SECTIONS}"),
    ('"a\\nb": 2\n', [], f":1: unknown key a b: {SECTIONS}"),
    (
        "quality:\n  dimensions:\n  - {name: a, function: 'b:c', wieght: 2}\n",
        [],
        ":3: unknown key quality.dimensions[0].wieght: did you mean quality.dimensions[0].weight?",
    ),
    ("synth:\n  n: 1\nseed: 3\nsynth:\n  n: 2\n", [], ":4: synth is given twice: it is already in line 1"),
    # Types.
    ("synth:\n  n: two\n", [], ":2: synth.n: expected `int`, got `str`"),
    ("synth:\n  n: 2.5\n", [], ":2: synth.n: expected `int`, got `float`"),
    ("synth:\n  n: true\n", [], ":2: synth.n: expected `int`, got `bool`"),
    ("synth:\n  n:\n", [], ":2: synth.n: expected `int`, got `null`"),
    ("synth: 5\n", [], ":1: synth: expected a section, got `int`"),
    ("synth: [1]\n", [], ":1: synth: expected a section, got a list"),
    ("stages: sft\n", [], ":1: stages: expected a list, got `str`"),
    ("name: 2024-01-01\n", [], ":1: name: expected `str`, got `date`"),
    ("quality:\n  uncertain_words: maybe\n", [], ":2: quality.uncertain_words: expected a list, got `str`"),
    # Words.
    ("model:\n  engine: sglang\n", [], ":2: model.engine: unknown engine 'sglang': expected one of hf, openai"),
    (
        "stages: [synth, evl]\n",
        [],
        ":1: stages: must hold known names: unknown stage 'evl': did you mean 'eval_rl'? expected one of build, ",
    ),
    ("sandbox: strickt\n", [], "sandbox.level: invalid enum value 'strickt': expected one of strict, process, unsafe"),
    # Numbers.
    ("seed: -1\n", [], ":1: seed: must not be negative, got -1"),
    ("synth:\n  n: 0\n", [], ":2: synth.n: must be at least 1, got 0"),
    ("rl:\n  generations: 1\n", [], ":2: rl.generations: must be at least 2, got 1"),
    ("limits:\n  turns: 0\n", [], ":2: limits.turns: must be at least 1, got 0"),
    ("synth:\n  top_p: 0.0\n", [], ":2: synth.top_p: must be positive, got 0.0"),
    ("synth:\n  top_p: 1.5\n", [], ":2: synth.top_p: must be at most 1, got 1.5"),
    ("sft:\n  learning_rate: .nan\n", [], ":2: sft.learning_rate: must be a finite number, got nan"),
    ("rl:\n  beta: .inf\n", [], ":2: rl.beta: must be a finite number, got inf"),
    # Keys that would do nothing.
    ("tasks: {format: town, path: x}\n", [], ":1: tasks.path is x, but tasks.format is town, which makes its tasks"),
    ("tasks: {format: town}\n", ["tasks=x.jsonl"], "override 'tasks=x.jsonl': tasks.path is x.jsonl, but tasks.format"),
    (
        "eval:\n  tasks:\n    format: almanac\n    path: x\n",
        [],
        ":4: eval.tasks.path is x, but eval.tasks.format is alm",
    ),
    ("tasks: {format: ftrl, path: x, count: 20}\n", [], ":1: tasks.count has no effect: tasks.format is ftrl"),
    ("tasks:\n  path: x\n  split: test\n", [], ":3: tasks.split has no effect: tasks.format is rewright"),
    ("rl:\n  tasks:\n    path: x\n    seed: 3\n", [], ":4: rl.tasks.seed has no effect"),
    ("tasks: {format: tau2, path: airline, seed: 3}\n", [], ":1: tasks.seed has no effect: tasks.format is tau2"),
    ("tasks: {format: bfcl, path: all, count: 3}\n", [], ":1: tasks.count has no effect: tasks.format is bfcl"),
    ("tasks: {format: ftrl, path: x}\n", ["tasks.profile=long"], "override 'tasks.profile=long': tasks.profile has no"),
    ("model: {path: m, base_url: 'http://h/v1'}\n", [], ":1: model.base_url has no effect: model.engine is hf"),
    ("repair:\n  model: {path: m, base_url: 'http://h/v1'}\n", [], ":2: repair.model.base_url has no effect"),
    ("tools: {passages: 3}\n", [], ":1: tools.passages has no effect: tools.search is null"),
    ("tools: {python_state: trajectory}\n", [], ":1: tools.python_state has no effect: tools.python is false"),
    ("user: {temperature: 1}\n", [], ":1: user.temperature has no effect: user.model is null"),
    ("sandbox: {url: 'http://h', network: true}\n", [], ":1: sandbox.network has no effect: sandbox.url is http://h"),
    ("tasks: {path: x, arguments: {a: 1}}\n", [], ":1: tasks.arguments: must be given with environment"),
    ("sft: {profile: long}\n", [], ":1: sft.profile has no effect: sft.source is run"),
    ("sft: {source: gold, demonstrations: 5}\n", [], ":1: sft.demonstrations has no effect: sft.source is gold"),
    ("dpo: {epochs: 3, steps: 5}\n", [], ":1: dpo.epochs has no effect: dpo.steps is 5"),
    ("reward: {attempts: 3}\n", [], ":1: reward.attempts has no effect: reward.url is null"),
    ("reward: {url: 'http://h', epochs: 1}\n", [], ":1: reward.epochs has no effect: reward.url is http://h: that"),
    (
        "rl: {warmup: 5}\n",
        [],
        ":1: rl.warmup has no effect: rl.scheduler is constant: expected rl.scheduler: constant_with_warmup",
    ),
    ("", ["sft.scheduler=constant", "sft.warmup=3"], "sft.warmup has no effect: sft.scheduler is constant"),
    ("repair: {rules: be brief, calls: 9}\n", [], ":1: repair.calls has no effect: repair.rules is a text without {ca"),
    (
        "repair: {modes: [low_quality], wrong_answer_threshold: 0.5}\n",
        [],
        ":1: repair.wrong_answer_threshold has no effect: repair.modes is [low_quality]",
    ),
    ("repair: {modes: [low_quality], show_error: true}\n", [], ":1: repair.show_error has no effect: repair.modes is"),
    # Values that do nothing, or refuse everything.
    ("repair: {modes: []}\n", [], ":1: repair.modes: must name what is repaired, got none"),
    ("repair: {modes: [low_quality, low_quality]}\n", [], ":1: repair.modes: must name each mode once"),
    ("repair: {low_quality_threshold: 2}\n", [], ":1: repair.low_quality_threshold: must be less than 1, got 2"),
    ("repair: {wrong_answer_threshold: 1}\n", [], ":1: repair.wrong_answer_threshold: must be less than 1, got 1"),
    ("repair: {rules: 'at most {n} calls'}\n", [], ":1: repair.rules: must have no placeholder but {calls} and {kept}"),
    ("repair: {rules: ' '}\n", [], ":1: repair.rules: must not be empty: null stands for the default text"),
    ("quality: {best_high: 1.5}\n", [], ":1: quality.best_high: must be at most 1, got 1.5"),
    ("quality: {uncertain_words: [hm, '']}\n", [], ":1: quality.uncertain_words: must be words, got an empty one"),
    ("rl: {reward_model_clip: 0}\n", [], ":1: rl.reward_model_clip: must be positive, got 0"),
    ("quality:\n  length_deviation: 0\n", [], ":2: quality.length_deviation: must be positive, got 0"),
    ("quality:\n  all_high: .nan\n", [], ":2: quality.all_high: must be a finite number, got nan"),
    (
        "quality:\n  dimensions:\n  - {name: a, function: 'b:c', weight: -1}\n",
        [],
        ":3: quality.dimensions[0].weight: must not be negative, got -1",
    ),
    (
        "prices:\n  gpt-4.1:\n    input: -1\n    output: 1\n",
        [],
        ":3: prices.gpt-4.1.input: must not be negative, got -1",
    ),
    ("model:\n  engine: openai\n  attempts: 0\n", [], ":3: model.attempts: must be at least 1, got 0"),
    ("repair:\n  model: {path: m, slots: 0}\n", [], ":2: repair.model.slots: must be at least 1, got 0"),
    ("rl:\n  entropy: -.inf\n", [], ":2: rl.entropy: must be a finite number, got -inf"),
    ("sft:\n  batch_size: 2000000000\n", [], ":2: sft.batch_size: must be at most 1000000000, got 2000000000"),
    ("tasks:\n  seed: 4294967296\n", [], ":2: tasks.seed: must be at most 4294967295, got 4294967296"),
    ("limits:\n  tool_seconds: .nan\n", [], ":2: limits.tool_seconds: must be a finite number, got nan"),
    ("limits:\n  trajectory_seconds: .inf\n", [], ":2: limits.trajectory_seconds: must be a finite number, got inf"),
    ("rl:\n  credit:\n    gamma: 1.1\n", [], ":3: rl.credit.gamma: must be at most 1, got 1.1"),
    ("rl:\n  credit:\n    weights: [1, .nan, 1]\n", [], ":3: rl.credit.weights[1]: must be a finite number, got nan"),
    ("rl:\n  loss_type: grop\n", [], ":2: rl.loss_type: invalid enum value 'grop': expected one of grpo, bnpo, "),
    ("sft:\n  scheduler: cosin\n", [], ":2: sft.scheduler: invalid enum value 'cosin': expected one of linear, "),
    ("seed: 4294967296\n", [], ":1: seed: must be at most 4294967295, got 4294967296"),
    ("reward:\n  minimum_accuracy: 70\n", [], ":2: reward.minimum_accuracy: must be at most 1, got 70"),
    ("sandbox:\n  memory_mb: 99999999999\n", [], ":2: sandbox.memory_mb: must be at most 1000000000, got 99999999999"),
    ("judge_seconds: 0\n", [], ":1: judge_seconds: must be positive, got 0"),
    *[(f"name: {name}\n", [], ":1: name: must be usable as a folder's name, got ") for name in NO_NAMES],
    ("name: ''\n", [], ":1: name: must be usable as a folder's name, got ''"),
    ('name: "a\\0b"\n', [], ":1: name: must be usable as a folder's name, got 'a\\x00b'"),
    (f"name: {'x' * 300}\n", [], ":1: name: must be usable as a folder's name, got 'xxx"),
    (
        "rl:\n  credit:\n    estimator: grpoo\n",
        [],
        ": rl.credit: unknown estimator 'grpoo': did you mean 'grpo'? expected one of delta, ",
    ),
    (
        "rl:\n  credit:\n    weights: [0, 0, 0]\n",
        [],
        ": rl.credit: weights are (0.0, 0.0, 0.0): expected three numbers",
    ),
    ("stages: []\n", [], ":1: stages: must name at least one stage, got none"),
    ("stages: [synth, synth]\n", [], ":1: stages: must be in the order in which they run, each once: [synth]"),
    ("stages: [score, judge]\n", [], ":1: stages: must be in the order in which they run, each once: [judge, score]"),
    ("seed: 1\n", ["stages=[]"], "override 'stages=[]': stages: must name at least one stage"),
    (
        "quality:\n  dimensions:\n  - {name: a, function: 'b:c'}\n  - {name: a, function: 'b:d', weight: 1}\n",
        [],
        ":2: quality.dimensions: must have different names, got 'a' twice",
    ),
    # Numbers beyond what anything holds.
    (f"limits: {{turn_tokens: {HUGE}}}\n", [], ":1: limits.turn_tokens: a number beyond 64 bits"),
    (f"limits:\n  turn_tokens: {ANY_SIZE}\n", [], ":2: limits.turn_tokens: a number beyond 64 bits"),
    (f"limits: {{tool_seconds: {HUGE}}}\n", [], ":1: limits.tool_seconds: a number beyond 64 bits"),
    (f"seed: -{HUGE}\n", [], ":1: seed: a number beyond 64 bits"),
    (f"name: {HUGE}\n", [], ":1: name: a number beyond 64 bits"),
    (f"tasks: {{path: {ANY_SIZE}, format: town}}\n", [], ":1: tasks.path: a number beyond 64 bits"),
    (f"rl:\n  credit:\n    weights: [1, {HUGE}, 1]\n", [], ":3: rl.credit.weights[1]: a number beyond 64 bits"),
    (f"model:\n  extra_body: {{a: [{HUGE}]}}\n", [], ":2: model.extra_body.a[0]: a number beyond 64 bits"),
    (f"sft:\n  arguments:\n    ? {ANY_SIZE}\n    : 1\n", [], ":2: sft.arguments: a number beyond 64 bits"),
    (f"? {ANY_SIZE}\n: 1\n", [], "recipe.yaml: recipe: a number beyond 64 bits"),
    ("seed: 1\n", [f"synth.n={HUGE}"], ": synth.n: a number beyond 64 bits"),
    ("stage_seconds: 1e300\n", [], ":1: stage_seconds: must be at most 1000000000, got 1e+300"),
    ("limits: {tool_seconds: 1e12}\n", [], ":1: limits.tool_seconds: must be at most 1000000000, got 1000000000000.0"),
    ("rl: {steps: 9223372036854775807}\n", [], ":1: rl.steps: must be at most 1000000000, got 9223372036854775807"),
    (
        "model: {engine: openai, extra_body: {a: .inf}}\n",
        [],
        ":1: model.extra_body.a: expected a finite number, got inf",
    ),
    # Addresses.
    *[
        (f"{section}: {{{keys}{key}: '{url}'}}\n", [], f":1: {section}.{key}: {said}")
        for section, keys, key in SERVERS
        for url, said in NO_ADDRESSES
    ],
    (
        "repair: {model: {path: m, engine: openai, base_url: 'localhost:8000'}}\n",
        [],
        ":1: repair.model.base_url: base_url 'localhost:8000': expected http",
    ),
    ("seed: 1\n", ["reward.url=localhost:8"], "override 'reward.url=localhost:8': reward.url: a server: expected an"),
    ("tools: {search: 'localhost:8001/search'}\n", [], ":1: tools.search: a server: expected an address such as http"),
    # Files.
    ("- a\n", [], ": expected a mapping of sections, got list"),
    ("just words\n", [], ": expected a mapping of sections, got str"),
    ("a: [\n", [], ":2: not valid YAML: "),
    ("seed: 1\n\tn: 2\n", [], ":2: not valid YAML: "),
    ("seed: \x01\n", [], ": not valid YAML: special characters are not allowed"),
    ("name: 2024-13-45\n", [], ": not valid YAML: month must be in 1..12"),
    ("a: !!python/object:os.system x\n", [], ":1: not valid YAML: "),
    ("a: &a\n  b: *a\n", [], ": not a recipe: nested too deeply"),
    ("[" * 3000, [], ": not a recipe: nested too deeply"),
    (LAUGHS, [], ": not a recipe: nested too deeply, or more than 10000 values"),
    (MERGES, [], ": not a recipe: nested too deeply, or more than 10000 values"),
    ("repair:\n  show_gold: !!bool perhaps\n", [], ": not valid YAML: a value does not fit its tag"),
    ("name: !!timestamp today\n", [], ": not valid YAML: a value does not fit its tag"),
    # Free keys.
    (
        "model:\n  engine: openai\n  extra_body:\n    logit_bias:\n      50256: -100\n",
        [],
        ":5: model.extra_body.logit_bias.50256: expected a text as key, got `int`: write '50256'",
    ),
    ("sft:\n  arguments: {1: a}\n", [], ":2: sft.arguments.1: expected a text as key, got `int`"),
    ("prices:\n  3: {input: 1, output: 1}\n", [], ":2: prices.3: expected a text as key, got `int`"),
    (
        "model:\n  template_options:\n    today: 2024-01-01\n",
        [],
        ":3: model.template_options.today: expected a text, a number, a list or a section, got `date`",
    ),
    ("sft:\n  arguments:\n    a: [1, !!set {b}]\n", [], ":3: sft.arguments.a[1]: expected a text, a number, a list or"),
    # Overrides.
    ("", ["synth.n"], "override 'synth.n': expected section.key=value"),
    ("", ["=3"], "override '=3': expected section.key=value"),
    ("", ["synht.n=3"], "override 'synht.n=3': unknown key synht: did you mean synth?"),
    ("", ["synth.m=3"], "override 'synth.m=3': unknown key synth.m: expected one of concurrency, limit, n"),
    ("synth:\n  n: 1\n", ["synth.n=many"], "override 'synth.n=many': synth.n: expected `int`, got `str`"),
    ("", ["synth.n.more=3"], "override 'synth.n.more=3': synth.n: expected `int`, got a section"),
    ("synth:\n  n: 1\n", ["synth.n.more=3"], "override 'synth.n.more=3': synth.n is not a section"),
    ("", ["limits=3"], "override 'limits=3': limits: expected a section, got `int`"),
    ("", ["synth.n=!!bool x"], "override 'synth.n=!!bool x': synth.n: expected `int`, got `str`"),
    ("", ["sft.arguments={a: {1: 2}}"], "override 'sft.arguments={a: {1: 2}}': sft.arguments.a.1: expected a text as"),
    (
        "rl:\n  credit: {gamma: 1}\n",
        ["rl.credit.estimator=grop"],
        "override 'rl.credit.estimator=grop': rl.credit: unknown estimator 'grop': did you mean 'grpo'? ",
    ),
    ("", ["model=caf\udce9"], ": not a recipe: a text holds bytes that are not UTF-8"),
    ("", ["tasks=x.jsonl", "tasks.limit=0"], "override 'tasks.limit=0': tasks.limit: must be at least 1, got 0"),
]


@pytest.mark.parametrize(("text", "overrides", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_file_line_key_and_what_was_expected(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        recipe(tmp_path, text, *overrides)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert "override" in said or str(tmp_path / "recipe.yaml") in said


def test_a_missing_file_a_directory_and_a_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read recipe .*none\.yaml: No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(InputError, match=r"picture\.yaml: not a UTF-8 text file"):
        load_recipe(tmp_path / "picture.yaml")


@pytest.mark.parametrize("number", ["1e-5", "1.0e-5", "0.00001", "1E-5"])
def test_numbers_are_written_as_people_write_them(tmp_path: Path, number: str) -> None:
    assert recipe(tmp_path, f"sft:\n  learning_rate: {number}\n").sft.learning_rate == 1e-5
    assert recipe(tmp_path, "", f"sft.learning_rate={number}").sft.learning_rate == 1e-5


def test_off_is_a_word_and_true_is_not(tmp_path: Path) -> None:
    assert recipe(tmp_path, "model:\n  engine: openai\n  log_probs: off\nname: yes\n").model.log_probs == "off"
    assert recipe(tmp_path, "repair:\n  show_gold: true\n").repair.show_gold is True
    with pytest.raises(InputError, match=r"repair\.show_gold: expected `bool`, got `str`"):
        recipe(tmp_path, "repair:\n  show_gold: yes\n")


@pytest.mark.parametrize("text", [" ", "# nothing\n", "---\n", "{}\n", "null\n", "~"])
@pytest.mark.parametrize("overrides", [[], ["seed=1"]])
def test_an_empty_recipe_is_a_mistake(text: str, overrides: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml: is empty: expected a recipe with at least one key"):
        recipe(tmp_path, text, *overrides)


def test_empty_sections_are_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(None) == Recipe()
    assert recipe(tmp_path, "synth:\n#  n: 3\nrl:\n  credit:\n") == Recipe()


def test_short_forms_and_overrides_of_their_keys(tmp_path: Path) -> None:
    made = recipe(tmp_path, "tasks: a.jsonl\nmodel: smollm2\nsandbox: process\nrepair:\n  model: pico-repairer\n")
    assert (made.tasks.path, made.model.path, made.sandbox.level) == ("a.jsonl", "smollm2", "process")
    assert made.repair.model is not None
    assert made.repair.model.path == "pico-repairer"
    made = recipe(tmp_path, "tasks: a.jsonl\n", "tasks.limit=3", "eval.tasks.limit=4")
    assert (made.tasks.path, made.tasks.limit, made.eval.tasks.limit) == ("a.jsonl", 3, 4)
    assert recipe(tmp_path, "tasks:\n  limit: 3\n", "tasks=b.jsonl").tasks == made.tasks.__class__(
        format="rewright", path="b.jsonl", limit=3
    )


def test_a_path_without_a_format_is_a_file_of_ours_or_of_the_format_of_the_tasks(tmp_path: Path) -> None:
    assert recipe(tmp_path, "", "tasks=a.jsonl").tasks.format == "rewright"
    assert recipe(tmp_path, "rl: {tasks: a.jsonl}\n").rl.tasks.format == "rewright"  # type: ignore[union-attr]
    made = recipe(tmp_path, "tasks: {format: ftrl, path: a.parquet}\neval: {tasks: b.parquet}\n")
    assert (made.eval.tasks.format, made.eval.tasks.path) == ("ftrl", "b.parquet")
    assert recipe(tmp_path, "").tasks.format == "town"


def test_what_a_recipe_says_of_a_world_is_dropped_where_a_file_is_named_instead(tmp_path: Path) -> None:
    text = "tasks: {format: town, split: long, count: 7}\neval: {tasks: {format: town, count: 9, seed: 4}}\n"
    made = recipe(tmp_path, text, "tasks.format=ftrl", "tasks=a.parquet", "eval.tasks.format=ftrl")
    assert (made.tasks.count, made.tasks.split) == (Recipe().tasks.count, Recipe().tasks.split)
    assert made.eval.tasks == msgspec.structs.replace(Recipe().eval.tasks, format="ftrl")
    resolved = yaml.safe_dump(msgspec.to_builtins(made), sort_keys=False)
    assert recipe(tmp_path, resolved) == made


def test_giving_one_key_of_a_section_leaves_its_other_defaults(tmp_path: Path) -> None:
    """The held-out tasks are not those that are trained on, whatever else is said of them."""
    base = Recipe()
    assert base.eval.tasks.split != base.tasks.split
    for made in (recipe(tmp_path, "eval:\n  tasks:\n    limit: 7\n"), recipe(tmp_path, "", "eval.tasks.limit=7")):
        assert made.eval.tasks == msgspec.structs.replace(base.eval.tasks, limit=7)
    made = recipe(tmp_path, "", "rl.credit.gamma=0.5")
    assert made.rl.credit == msgspec.structs.replace(base.rl.credit, gamma=0.5)
    assert recipe(tmp_path, "eval:\n  tasks:\n    split: long\n").eval.tasks.split == "long"
    assert recipe(tmp_path, "", "rl.tasks.limit=7").rl.tasks == base.tasks.__class__(limit=7)


def test_keys_that_have_an_effect_after_all_are_no_mistakes(tmp_path: Path) -> None:
    rules = r"Use \boxed{answer}, {\"a\": 1}, $x_{n}$ or {{name}}, with at most {calls} calls."
    assert recipe(tmp_path, f"repair:\n  calls: 5\n  rules: |\n    {rules}\n").repair.calls == 5
    assert recipe(tmp_path, "repair: {modes: [low_quality], show_error: false}\n").repair.modes == ("low_quality",)
    assert recipe(tmp_path, "sft: {scheduler: constant, warmup: 0}\n").sft.scheduler == "constant"
    assert recipe(tmp_path, "rl: {warmup: 5, backend: verl}\n").rl.warmup == 5
    assert recipe(tmp_path, "rl: {warmup: 5}\n", "rl.scheduler=constant_with_warmup").rl.warmup == 5
    # The override says what counts, and the file's key is dropped.
    assert recipe(tmp_path, "reward: {epochs: 1}\n", "reward.url=http://h").reward.url == "http://h"
    assert recipe(tmp_path, "tools: {python: true, output_characters: 9}\n", "tools.python=false").tools.python is False


def test_overrides_win_over_the_file_and_the_last_one_counts(tmp_path: Path) -> None:
    assert recipe(tmp_path, "synth:\n  n: 1\n", "synth.n=2", "synth.n=3").synth.n == 3
    assert recipe(tmp_path, "limits:\n  turns: 4\n", "limits.turns=null").limits.turns is None
    assert recipe(tmp_path, "", "stages=[synth, judge]").stages == ("synth", "judge")
    assert recipe(tmp_path, "", "model.path=a=b").model.path == "a=b"
    assert recipe(tmp_path, "", "name=[not closed").name == "[not closed"


@pytest.mark.parametrize(
    "overrides", [[], ["name=on", "model.engine=openai", "model.log_probs=off", "sft.learning_rate=7e-6", "tasks=x"]]
)
def test_a_resolved_recipe_is_read_back_as_it_was(tmp_path: Path, overrides: list[str]) -> None:
    made = load_recipe(None, overrides)
    text = yaml.safe_dump(msgspec.to_builtins(made), sort_keys=False, allow_unicode=True)
    assert recipe(tmp_path, text) == made


def test_the_hash_depends_on_the_named_sections_only() -> None:
    base, other = load_recipe(None), load_recipe(None, ["rl.steps=7"])
    assert recipe_hash(base, ["seed", "synth"]) == recipe_hash(other, ["seed", "synth"])
    assert recipe_hash(base, ["rl"]) != recipe_hash(other, ["rl"])
    assert recipe_hash(base, ["seed", "rl"]) == recipe_hash(load_recipe(None), ["seed", "rl"])


def test_recipes_in_the_package_and_the_repository_are_valid() -> None:
    root = Path(__file__).parents[2]
    files = [*root.glob("recipes/*.yaml"), *root.glob("src/rewright/recipes/*.yaml")]
    assert files
    for file in files:
        load_recipe(file)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("synth n:=-[]{}&*!'\"\n\t 01e.,#|>~%@`?") | st.characters(), max_size=60))
def test_any_text_is_a_recipe_or_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for load in (
        lambda: load_recipe(path),
        lambda: load_recipe(None, [text]),
        lambda: load_recipe(None, [f"seed={text}"]),
    ):
        try:
            load()
        except InputError as problem:
            assert "\n" not in str(problem)
