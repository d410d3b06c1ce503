"""Commands that execute no stages: validate, credit, import and export."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from rewright.cli.output import as_text, print_json
from rewright.cli.program import command
from rewright.cli.registered import names_of
from rewright.cli.shards import RayOption, is_sharded_run, print_pass
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.trust import check_packages
from rewright.recipe.overrides import override_of

__all__ = ["register"]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
]
TrustedOption = Annotated[
    list[str] | None,
    typer.Option("--trusted", help="Package or import path in the run's recipe whose code may run. Repeatable."),
]

ScorerOption = Annotated[
    str | None, typer.Option(help="Model that scores tokens, for signals that need one (signals.scorer).")
]
JudgeOption = Annotated[
    str | None, typer.Option(help="Model that judges, for signals that need one: a path, or NAME@URL of a server.")
]
RewardModelOption = Annotated[
    str | None, typer.Option("--reward-model", help="Folder of a reward model, for signals that need one.")
]
PrefixOption = Annotated[
    list[str] | None,
    typer.Option("--strip-prefix", help="Remove this prefix from names of tools, such as functions. Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command()(validate)
    app.command()(credit)
    app.command(name="import")(import_trajectories)
    app.command()(export)


def validate(
    tasks: Annotated[Path, typer.Argument(metavar="TASKS|RUN", help="Task file, or a run directory: its tasks.")],
    *,
    task_format: Annotated[str | None, typer.Option("--format", help="Format of the file (default: rewright).")] = None,
    against: Annotated[Path | None, typer.Option(help="Test set; report its tasks that are also in this file.")] = None,
    against_format: Annotated[
        str | None, typer.Option(help="Format of the test set (default: the format of the file).")
    ] = None,
    level: Annotated[
        Literal["strict", "process", "unsafe"], typer.Option(help="Sandbox level for tool sources.")
    ] = "strict",
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Also check the chat template of this model: a folder or a Hugging Face id.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="With --model: its dialect (docs/dialects.md).")] = "hermes",
    judges: Annotated[
        list[str] | None, typer.Option(help="Package whose functions the tasks may name as judges. Repeatable.")
    ] = None,
    trusted: Annotated[
        list[str] | None, typer.Option(help="Package whose importable tools run outside of the sandbox. Repeatable.")
    ] = None,
    execute: Annotated[bool, typer.Option(help="Run tool sources and gold calls.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Validate tasks before a run: schemas, sources, gold calls and answers, test-set overlap, chat template."""
    if against_format is not None and against is None:
        raise InputError("--against-format needs --against, the test set")
    from rewright.core.progress import Bar
    from rewright.dialects import get_dialect
    from rewright.tasks.validation import validate_file

    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")
    check_packages(judges or (), "--judges")
    check_packages(trusted or (), "--trusted")
    if (tasks / "recipe.yaml").is_file():
        tasks /= "tasks.jsonl"
    call_dialect, renderer = get_dialect(dialect), None
    if model is not None:
        from rewright.engines.embedded import HFSettings
        from rewright.engines.loading import load_tokenizer
        from rewright.rendering.renderer import Renderer

        renderer = Renderer(load_tokenizer(HFSettings(path=model)), call_dialect)
    with Bar("rows", 0) as bar:  # their number is known when the first is executed

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.step(done - bar.done)

        found = validate_file(
            tasks,
            task_format,
            limit,
            execute=execute,
            level=level,
            trusted=trusted or (),
            renderer=renderer,
            judges=judges or (),
            progress=progress,
        )
    line = as_text(as_json)
    for finding in found.findings:
        line(str(finding))
    overlaps = 0
    if against is not None:
        from rewright.tasks.contamination import find_overlaps
        from rewright.tasks.loading import load_tasks

        for overlap in find_overlaps(
            load_tasks(tasks, task_format, limit, check=False),
            load_tasks(against, against_format or task_format, check=False),
        ):
            overlaps += 1
            line(f"overlap: {overlap}")
    errors = found.errors
    line(
        f"{found.tasks} rows, {found.tools} tool functions, {found.expected_outputs} expected outputs: "
        f"{errors} errors, {len(found.findings) - errors} warnings"
        + (f", {overlaps} overlaps" if against is not None else "")
        + ("" if found.executed else " (nothing executed)")
    )
    if as_json:
        counts = {"rows": found.tasks, "tools": found.tools, "errors": errors, "findings": found.counts}
        print_json(counts if against is None else {**counts, "overlaps": overlaps})
    if errors:
        raise typer.Exit(1)


def credit(
    file: Annotated[Path, typer.Argument(help="Run directory, trajectories.jsonl, or logs of any source.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of rl.credit: gamma=1 singleton_turn=zero …"),
    ] = None,
    *,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help=f"Format of the logs{names_of('importer')}, or an import path (default: detected)."
        ),
    ] = None,
    gold: Annotated[Path | None, typer.Option(help="Gold calls: a task file, or rows with id and gold_calls.")] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="Outcome column (default: reward). Repeat to sum columns; 'none' if there is none."),
    ] = None,
    allowed_values: Annotated[
        bool, typer.Option("--allowed-values", help="Gold arguments are lists of allowed values, as in BFCL.")
    ] = False,
    assignment: Annotated[
        Literal["optimal", "greedy", "ot"] | None, typer.Option(help="Assignment of calls to gold calls.")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help=f"Advantage estimator{names_of('estimator')}, or an import path.")
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option(
            help=f"Credit signal{names_of('signal')}, an import path, or '{{name: …, …}}' with its settings; a list of "
            "them, with a scale each, is their sum (default: matched)."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="For a file: recipe whose rl and signals sections are used.")
    ] = None,
    scorer: ScorerOption = None,
    judge: JudgeOption = None,
    reward_model: RewardModelOption = None,
    trusted: TrustedOption = None,
    strip_prefix: PrefixOption = None,
    picture: Annotated[Path | None, typer.Option(help="Draw one trajectory to this .svg or .png file.")] = None,
    trajectory: Annotated[
        str | None, typer.Option(help="With --picture: id of the trajectory (default: the first).")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Show only this stage of a run: synth, repair, eval-base, eval-sft, eval-rl, rl.")
    ] = None,
    ray: RayOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")] = False,
) -> None:
    """Compute turn rewards and advantages of stored trajectories from any source.

    Settings are those of the run's recipe, or MatchTIR's for files of other projects. RL rollouts show the values that
    RL used, unless settings are given here.
    """
    if trajectory is not None and picture is None:
        raise InputError("--trajectory needs --picture, which shows it")
    from rewright.credit.estimators import find_estimator, reads_of
    from rewright.importers.gold_files import LazyGold
    from rewright.importers.own import OWN, is_own
    from rewright.reports.credit_stream import can_stream, stream_credit
    from rewright.reports.credit_table import Summary, credit_as_json, credit_as_table, log_warnings
    from rewright.reports.stored_credit import Credited, read_gold, read_stored, recipe_for, signal_resources
    from rewright.reports.stored_credit import credit as credited_of

    own_gold = gold is None and file.is_dir() and (file / "tasks.jsonl").exists()
    gold = file / "tasks.jsonl" if own_gold else gold
    options = {"assignment": assignment, "estimator": estimator, "signal": signal}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    changed = [*given, *(changes or ())]  # this order: signal.KEY=VALUE sets a key of the given signal
    models = {"scorer": scorer, "judge": judge, "reward_model": reward_model}
    given_models = [change for key, value in models.items() if value for change in model_changes(key, value)]
    whole = recipe_for(file, changed, models=given_models, recipe=recipe, trusted=trusted or ())
    settings = whole.rl
    try:
        prefixes = strip_prefix or ()
        known = None
        if own_gold and not settings.credit.match_scale:  # without a part `matched` the tasks need no gold calls
            gold = None
        if gold is not None:
            known = LazyGold(partial(read_gold, gold, allowed_values=allowed_values, prefixes=prefixes))
            if not own_gold or allowed_values:
                _ = known.calls  # its errors come first
        recompute = bool(changed) or outcome is not None
        if is_sharded_run(file, ray):
            from rewright.reports.sharded_credit import CreditPass

            if picture is not None or prefixes or len(outcome or ()) > 1:
                raise InputError(
                    f"{file}: its trajectories are shards: expected no --picture, --strip-prefix, second --outcome"
                )
            read = None if gold is None else (gold, partial(read_gold, gold, allowed_values=allowed_values))
            metric = outcome[0] if outcome else None
            work = CreditPass(file, settings, read, recompute=recompute, metric=metric, stage=stage)
            print_pass(work, ray, as_json=as_json)
            return
        own = file_format == OWN or (file_format is None and is_own(file))
        streamed = None
        reported: dict[str, float] = {}
        # The shares that an estimator of states reports are those of the whole file.
        reports = "state_keys" in reads_of(find_estimator(settings.credit.estimator_name))
        if own and not (picture or prefixes or reports) and len(outcome or ()) < 2 and can_stream(settings):
            metric = outcome[0] if outcome else None
            streamed = stream_credit(
                file, known, settings, recompute=recompute, metric=metric, stage=stage, as_json=as_json
            )
        found: list[Credited] = []
        if streamed is None:
            stored = read_stored(file, outcome=outcome, file_format=file_format, prefixes=prefixes)
            gold_calls = None if known is None else known.calls
            with signal_resources(file, whole) as resources:
                found = credited_of(
                    stored, gold_calls, settings, recompute=recompute, metrics=reported, resources=resources
                )
    except ValueError as problem:
        raise problem if isinstance(problem, InputError) else InputError(str(problem)) from None
    stages = {one.stored.stage for one in found if one.stored.stage} if streamed is None else streamed.stages
    if stage is not None:
        found = [one for one in found if one.stored.stage == stage]
        if not (found if streamed is None else streamed.count):
            names = ", ".join(sorted(stages)) or "none"
            raise InputError(f"--stage {stage}: {file} has no trajectory of it: it has {names}")
    summary = Summary.of(found) if streamed is None else streamed.summary
    summary.check(settings.credit.signal_name)
    if signal is not None or estimator is not None or settings.credit.signal != "matched":
        say(summary.described(settings.credit, found[0].stats if found else {}))
    for note in (*summary.notes(), *(f"credit: {name}: {value:.0%} of the turns" for name, value in reported.items())):
        say(note)
    if streamed is not None:
        lines = streamed.lines()
    else:
        lines = (json.dumps(credit_as_json(one)) for one in found) if as_json else credit_as_table(found)
    for line in lines:
        print(line)
    if picture is not None:
        from rewright.reports.credit_picture import drawing_of

        chosen = next((one for one in found if trajectory in (None, one.stored.id)), None)
        if chosen is None:
            raise InputError(f"--trajectory {trajectory}: {file} has no trajectory of that id")
        drawing_of(chosen).save(picture)
        say(f"written: {picture}")
    signal_name = settings.credit.signal_name
    judging = "" if own else f"judging gives outcomes: {command('import', file, '--run', _run_of(file))}"
    for warning in summary.warnings(signal_name, lambda seen: log_warnings(found, signal_name, seen), judging=judging):
        say(warning)


def model_changes(key: str, value: str) -> list[str]:
    """The recipe keys of a model that is given as a path, as NAME@URL, or as a mapping of its settings."""
    if key == "reward_model":
        return [override_of(key, value)]
    if value.lstrip().startswith("{"):
        return [f"{key}={value}"]
    name, at, url = value.partition("@http")
    if not at:
        if value.startswith("http"):
            raise InputError(f"--{key} {value}: expected the name of the model too, as NAME@{value}")
        return [override_of(f"{key}.path", value)]
    served = override_of(f"{key}.path", name), override_of(f"{key}.base_url", f"http{url}")
    return [f"{key}.engine=openai", *served]


def _run_of(log: Path) -> Path:
    """The run directory that is proposed for a log."""
    return Path("runs") / (log.resolve().name.partition(".")[0] or "imported")


def import_trajectories(
    file: Annotated[
        Path, typer.Argument(help="File of trajectories or logs, or the folder of a run of TRL, verifiers.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe settings: model.base_url=… tasks=FILE judge_seconds=5 …"),
    ] = None,
    *,
    run: Annotated[Path, typer.Option("--run", help="New run directory.")],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe of the run, with the trajectories' tasks (default: none).")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help=f"Format{names_of('importer')}, or an import path (default: detected)."),
    ] = None,
    gold: Annotated[
        Path | None, typer.Option(help="Gold calls and answers: a task file, or rows with id or question.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Column of the gold answer (default: answer, target …); 'none' if there is none.")
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="Outcome column (default: reward). Repeat to sum columns; 'none' if there is none."),
    ] = None,
    strip_prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a run from trajectories or logs of any source. The run continues with judging.

    Attempts belong to the recipe's tasks of the same id or question; for others, tasks are made from the log.
    """
    from rewright.pipeline.imports import LogOptions
    from rewright.pipeline.imports import import_trajectories as import_into

    options = LogOptions(outcome or (), answer, gold, strip_prefix or ())
    found = import_into(file, run, recipe=recipe, changes=changes or (), file_format=file_format, options=options)
    for remark in found.remarks:
        say(remark)
    for words, setting in found.needs:
        say(f"warning: {command('repair', run)} {words}: {setting}")
    as_text(as_json)(f"{found.trajectories} trajectories imported: go on with {command('judge', run)}")
    if as_json:
        print_json({"run": str(run), "trajectories": found.trajectories, "tasks": found.tasks})


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    *,
    export_format: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Format to write{names_of('exporter')}, or an import path. See docs/exports.md.",
        ),
    ] = "trl",
    as_json: JsonOption = False,
) -> None:
    """Write the SFT and preference sets of a run for other trainers, or its trajectories as traces."""
    from rewright.exports.exports import export as export_sets
    from rewright.pipeline.run_directory import Run

    written = export_sets(Run.open(run), out, export_format)
    for path, rows, left_out in written:
        note = f" ({left_out} left out: the format cannot represent them)" if left_out else ""
        as_text(as_json)(f"{path}: {rows} rows{note}")
    if as_json:
        print_json({"files": [{**one._asdict(), "path": str(one.path)} for one in written]})
    say(f"look at the run with {command('view', run)}")
