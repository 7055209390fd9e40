"""What the jobs print at their end."""

from rich.console import Console
from rich.markup import escape

from braidrec.data.storage import Location
from braidrec.display.summary import print_recommendations, print_strands, print_summary
from braidrec.display.text import tool
from braidrec.runs.attack import AttackResult
from braidrec.runs.evaluate import EvaluateResult
from braidrec.training.result import TrainResult


def print_train_result(result: TrainResult) -> None:
    """Metrics, phases, places; then what the model recommends to one user, and what to do next."""
    print_summary(
        run_name=result.name,
        best_epoch=result.best_epoch,
        epochs_run=result.epochs_run,
        metrics={name: value for name, value in result.metrics.items() if name.startswith(("valid/", "test/"))},
        seconds=result.seconds,
        places={
            "run folder": result.folder,
            "checkpoint": result.checkpoint,
            **({"per-user results": f"{result.folder}/per_user/test"} if _is_tested(result) else {}),
            **_prototypes(result),
        },
        tracking_uri=result.tracking_uri,
    )
    print_strands(result.metrics)
    if result.example is not None:
        print_recommendations(result.example.user_id, result.example.items)
    print(f"recommend to all users:  {tool('python')} jobs/recommend.py --set run={result.folder}", flush=True)


def _prototypes(result: TrainResult) -> dict[str, str]:
    """The page that says what they stand for, of a model that has some."""
    page = Location.of(result.folder).child("prototypes.html")
    return {"prototypes": page.uri} if page.is_file() else {}


def _is_tested(result: TrainResult) -> bool:
    return any(name.startswith("test/") for name in result.metrics)


def print_evaluate_result(result: EvaluateResult, console: Console | None = None) -> None:
    """Metrics of the split and of its slices."""
    from rich.table import Table

    console = console or Console()
    without = "".join(f", {rate:.10g} without {name}" for name, rate in result.drop_modality.items())
    title = f"{result.split}, {result.mask} masked, {result.result.num_users:,} users{without}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result.result.metrics.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    for name, groups in result.result.slices.items():
        # A group without users has no recall, and may well be the first.
        keys = dict.fromkeys(key for values in groups.values() for key in values)
        columns = [key for key in keys if key.startswith(("recall", "num_users"))]
        table = Table(title=name, title_justify="left")
        table.add_column("group")
        for column in columns:
            table.add_column(column, justify="right")
        for group, values in groups.items():
            cells = [values.get(column) for column in columns]
            table.add_row(group, *("–" if cell is None else f"{cell:.4g}" for cell in cells))
        console.print(table)
    if result.approximate is not None:
        console.print(result.approximate.text, soft_wrap=True, highlight=False)
    console.print(f"metrics  {result.metrics_file}\nper user {result.per_user_file}", soft_wrap=True, highlight=False)


def print_attack_result(result: AttackResult, console: Console | None = None) -> None:
    """The curve: what is left of each metric at every ε, on purpose and at random."""
    from rich.table import Table

    console = console or Console()
    names = [name for name in result.points[0].metrics if name.startswith(("recall", "ndcg", "auc", "rmse"))]
    title = f"{result.split}, {result.mask} masked, attack on {', '.join(result.modalities)}"
    table = Table(title=escape(title), title_justify="left")
    for column in ("ε", "direction", *names):
        table.add_column(column, justify="left" if column == "direction" else "right")
    for point in result.points:
        values = (f"{point.metrics[name]:.4f}" if name in point.metrics else "–" for name in names)
        table.add_row(f"{point.epsilon:g}", point.direction, *values)
    console.print(table)
    console.print(f"curve  {result.curve_file}", soft_wrap=True, highlight=False)
